-- +goose Up

-- The row of a budget that a run brings along may be that of a step, or of a run around it, as well as its own. Whose end
-- it is forgotten after; null: the budget is the run's own, made by a node of the version before.
alter table budget_window add column run_id uuid;

-- As budget_need, with the run instead of whether there is one.
create type budget_need_2 as (id uuid, run_id uuid, limit_nano int8, limit_tokens int8, spent_nano int8, spent_tokens int8);

-- Books a batch: what is ended gives its money back first, then each reservation in turn is made in all its budgets or
-- in none. Rows of budget_window are locked in the order of their ids and written once, however many bookings meet in
-- them. A void reservation is one that nobody wants whether it was made or not: its row keeps it from being made late.
-- +goose StatementBegin
create function budget_book(a_node uuid, needs budget_need_2[], holds hold_new[], ends hold_end[], voids uuid[])
returns setof booking_note language plpgsql as $$
declare
    -- of each need: its window, its limits, and where it stands among the locked ones
    n_window bigint[] := '{}'; n_nano bigint[]; n_tokens bigint[]; n_at int[];
    -- of each window in which something ended: what changes
    d_window bigint[] := '{}'; d_spent bigint[]; d_reserved bigint[]; d_spent_tokens bigint[]; d_reserved_tokens bigint[];
    -- the locked windows as they come to be
    w_id bigint[]; w_spent bigint[]; w_reserved bigint[]; w_spent_tokens bigint[]; w_reserved_tokens bigint[];
    made int[] := '{}';
    hold hold_new; need int; k int; i int := 0; n int; missing boolean; fits boolean; note booking_note;
begin
    if cardinality(voids) > 0 then
        insert into reservation (node, id, state, nano, tokens, windows)
        select a_node, v, 'void', 0, 0, '{}' from unnest(voids) v order by v on conflict do nothing;
    end if;

    if cardinality(ends) > 0 then
        with settled as (
            delete from reservation r using unnest(ends) e
            where r.node = a_node and r.id = e.id and not e.lost and r.state <> 'void'
            returning r.windows, r.state, r.nano, r.tokens, e.nano as spent, e.tokens as spent_tokens),
        lost as (
            update reservation r set state = 'lost' from unnest(ends) e
            where r.node = a_node and r.id = e.id and e.lost and r.state = 'held'
            returning r.windows, r.state, r.nano, r.tokens, r.nano as spent, r.tokens as spent_tokens),
        ended as (select *, true as held from lost
            union all select *, state = 'held' as held from settled),
        change as (
            select w.id,
                sum(e.spent - case when e.held then 0 else e.nano end)::int8 as spent,
                sum(case when e.held then e.nano else 0 end)::int8 as reserved,
                sum(e.spent_tokens - case when e.held then 0 else e.tokens end)::int8 as spent_tokens,
                sum(case when e.held then e.tokens else 0 end)::int8 as reserved_tokens
            from ended e cross join unnest(e.windows) w(id) group by w.id)
        select coalesce(array_agg(c.id), '{}'), array_agg(c.spent), array_agg(c.reserved), array_agg(c.spent_tokens), array_agg(c.reserved_tokens)
        into d_window, d_spent, d_reserved, d_spent_tokens, d_reserved_tokens from change c;
    end if;

    for tries in 1 .. 4 loop
        if cardinality(needs) > 0 then
            select array_agg(w.id order by u.place),
                array_agg(case when u.run_id is not null then u.limit_nano else b.limit_nano end order by u.place),
                array_agg(case when u.run_id is not null then u.limit_tokens else b.limit_tokens end order by u.place),
                bool_or(w.id is null and (u.run_id is not null or b.id is not null))
            into n_window, n_nano, n_tokens, missing
            from unnest(needs) with ordinality u(id, run_id, limit_nano, limit_tokens, spent_nano, spent_tokens, place)
            left join budget b on b.id = u.id and u.run_id is null
            left join budget_window w on w.budget = u.id
                and w.started = case when u.run_id is not null then timestamptz 'epoch' else budget_start(b.period, b.time_zone, now()) end;
            if missing then
                insert into budget_window (budget, run, run_id, started, spent_nano, spent_tokens)
                select u.id, u.run_id is not null, u.run_id, case when u.run_id is not null then timestamptz 'epoch' else budget_start(b.period, b.time_zone, now()) end,
                    u.spent_nano, u.spent_tokens
                from unnest(needs) u left join budget b on b.id = u.id and u.run_id is null
                where u.run_id is not null or b.id is not null order by u.id on conflict do nothing;
                continue;
            end if;
        end if;
        select array_agg(w.id), array_agg(w.spent_nano), array_agg(w.reserved_nano), array_agg(w.spent_tokens), array_agg(w.reserved_tokens)
        into w_id, w_spent, w_reserved, w_spent_tokens, w_reserved_tokens
        from (select * from budget_window where id = any (n_window || d_window) order by id for no key update) w;
        missing := false;
        n_at := '{}';
        for k in 1 .. cardinality(n_window) loop
            n_at[k] := array_position(w_id, n_window[k]);
            missing := missing or n_at[k] is null and n_window[k] is not null; -- swept away a moment ago
        end loop;
        exit when not missing;
    end loop;
    if missing then
        raise exception 'budgets are swept as fast as they are made' using errcode = 'serialization_failure';
    end if;

    for d in 1 .. cardinality(d_window) loop
        k := array_position(w_id, d_window[d]); -- null: the budget was deleted
        continue when k is null;
        w_spent[k] := w_spent[k] + d_spent[d];
        w_reserved[k] := w_reserved[k] - d_reserved[d];
        w_spent_tokens[k] := w_spent_tokens[k] + d_spent_tokens[d];
        w_reserved_tokens[k] := w_reserved_tokens[k] - d_reserved_tokens[d];
    end loop;

    foreach hold in array holds loop
        i := i + 1;
        fits := true;
        foreach need in array hold.needs loop
            k := n_at[need];
            continue when k is null;
            if n_nano[need] > 0 and (hold.unpriced or w_spent[k] + w_reserved[k] + hold.nano > n_nano[need])
                or n_tokens[need] > 0 and w_spent_tokens[k] + w_reserved_tokens[k] + hold.tokens > n_tokens[need] then
                note := null;
                note.hold := i;
                note.budget := needs[need].id;
                note.unpriced := n_nano[need] > 0 and hold.unpriced;
                note.in_tokens := not (n_nano[need] > 0 and w_spent[k] + w_reserved[k] + hold.nano > n_nano[need]);
                note.limit_nano := n_nano[need];
                note.spent_nano := w_spent[k];
                note.reserved_nano := w_reserved[k];
                note.limit_tokens := n_tokens[need];
                note.spent_tokens := w_spent_tokens[k];
                note.reserved_tokens := w_reserved_tokens[k];
                select budget_end(b.period, b.time_zone, budget_start(b.period, b.time_zone, now())) into note.resets
                from budget b where b.id = note.budget;
                return next note;
                fits := false;
                exit;
            end if;
        end loop;
        continue when not fits;
        foreach need in array hold.needs loop
            k := n_at[need];
            continue when k is null;
            w_reserved[k] := w_reserved[k] + hold.nano;
            w_reserved_tokens[k] := w_reserved_tokens[k] + hold.tokens;
        end loop;
        made := made || i;
    end loop;

    if cardinality(made) > 0 then
        insert into reservation (node, id, state, nano, tokens, windows, tenant_id, run_id, step, gen, attempt)
        select a_node, h.id, 'held', h.nano, h.tokens, array(select n_window[x] from unnest(h.needs) x where n_window[x] is not null),
            h.tenant_id, h.run_id, h.step, h.gen, h.attempt
        from unnest(made) m cross join lateral (select (holds[m]).*) h on conflict do nothing;
        get diagnostics n = row_count;
        if n <> cardinality(made) then
            raise exception 'a reservation was given up before it was made' using errcode = 'serialization_failure';
        end if;
    end if;

    if cardinality(made) > 0 or cardinality(d_window) > 0 then
        update budget_window w set spent_nano = u.spent, reserved_nano = u.reserved,
            spent_tokens = u.spent_tokens, reserved_tokens = u.reserved_tokens
        from unnest(w_id, w_spent, w_reserved, w_spent_tokens, w_reserved_tokens) u(id, spent, reserved, spent_tokens, reserved_tokens)
        where w.id = u.id;
    end if;

    if cardinality(d_window) > 0 then
        return query
        with passed as (
            select w.id, array_agg(p order by p) as percents from budget_window w join budget b on b.id = w.budget cross join unnest(b.soft) p
            where w.id = any (d_window) and p <> all (w.crossed)
                and (b.limit_nano > 0 and w.spent_nano::numeric * 100 >= b.limit_nano::numeric * p
                    or b.limit_tokens > 0 and w.spent_tokens::numeric * 100 >= b.limit_tokens::numeric * p)
            group by w.id),
        noted as (
            update budget_window w set crossed = w.crossed || p.percents,
                crossed_at = w.crossed_at || array_fill(now(), array[cardinality(p.percents)])
            from passed p where w.id = p.id
            returning w.budget, p.percents, w.spent_nano, w.reserved_nano, w.spent_tokens, w.reserved_tokens)
        select null::int4, b.id, p, false, false, b.limit_nano, o.spent_nano, o.reserved_nano,
            b.limit_tokens, o.spent_tokens, o.reserved_tokens, null::timestamptz
        from noted o join budget b on b.id = o.budget cross join unnest(o.percents) p;
    end if;
end $$;
-- +goose StatementEnd

-- What nodes of the version before go on calling.
create or replace function budget_book(a_node uuid, needs budget_need[], holds hold_new[], ends hold_end[], voids uuid[])
returns setof booking_note language sql as $$
    select * from budget_book(a_node, array(
        select row(n.id, case when n.run then n.id end, n.limit_nano, n.limit_tokens, n.spent_nano, n.spent_tokens)::budget_need_2
        from unnest(needs) with ordinality n(id, run, limit_nano, limit_tokens, spent_nano, spent_tokens, place) order by n.place),
        holds, ends, voids)
$$;
