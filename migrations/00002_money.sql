-- +goose Up

-- What the savings report compares with: the same tokens, uncached, on the baseline model; and what of the difference
-- providers' caches took off.
alter table run add column baseline_nano bigint not null default 0, add column cache_saved_nano bigint not null default 0;
alter table spend add column baseline_nano bigint not null default 0, add column cache_saved_nano bigint not null default 0;

-- What a commit sends from now on; nodes of the version before go on sending the former types.
create type run_new_2 as (
    id uuid, tenant_id uuid, created_at timestamptz, version int4, steps_total int4, priority int2, workflow text,
    hash bytea, stakes text, mode text, labels jsonb, owned boolean,
    status text, format int2, stage text, waiting_for text, preview text, error_class text, error_message text,
    error_step text, cost_nano int8, tokens_input int8, tokens_cache_read int8, tokens_cache_write int8,
    tokens_output int8, tokens_reasoning int8, calls int4, unpriced_calls int4, simulated_calls int4, steps_done int4,
    wake_at timestamptz, crashes int2, started_at timestamptz, finished_at timestamptz, baseline_nano int8,
    cache_saved_nano int8
);
create type run_row_2 as (
    id uuid, release boolean,
    status text, format int2, stage text, waiting_for text, preview text, error_class text, error_message text,
    error_step text, cost_nano int8, tokens_input int8, tokens_cache_read int8, tokens_cache_write int8,
    tokens_output int8, tokens_reasoning int8, calls int4, unpriced_calls int4, simulated_calls int4, steps_done int4,
    wake_at timestamptz, crashes int2, started_at timestamptz, finished_at timestamptz, baseline_nano int8,
    cache_saved_nano int8
);
create type spend_new_2 as (
    hour timestamptz, tenant_id uuid, workflow text, agent text, provider text, model text, simulated boolean,
    calls int8, unpriced int8, tokens_input int8, tokens_cache_read int8, tokens_cache_write int8, tokens_output int8,
    tokens_reasoning int8, cost_nano int8, baseline_nano int8, cache_saved_nano int8
);

-- A limit on what may be spent. A run's own budget has no row here: its limit comes with each of its calls.
create table budget (
    id           uuid        primary key,
    tenant_id    uuid        not null references tenant,
    name         text        not null,
    scope        text        not null check (scope in ('tenant', 'workflow', 'agent', 'provider', 'model', 'label')),
    scope_of     text        not null,          -- the name of the workflow, agent …; key=value of a label
    period       text        not null check (period in ('lifetime', 'day', 'week', 'month')),
    time_zone    text        not null,          -- where a period begins and ends
    limit_nano   bigint      not null,          -- 0: none in money
    limit_tokens bigint      not null,          -- 0: none in tokens
    soft         int2[]      not null,          -- percents of the limits that are reported when they are passed
    on_hard      text        not null check (on_hard in ('reject', 'clamp', 'downgrade', 'pause')),
    export       boolean     not null,          -- as a metric
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    constraint budget_limits check (limit_nano >= 0 and limit_tokens >= 0 and limit_nano + limit_tokens > 0),
    constraint budget_scope_of check ((scope_of = '') = (scope = 'tenant')),
    unique (tenant_id, name)
);

-- When the period of a budget that an instant falls into began, and when it ends. A lifetime began with the epoch.
create function budget_start(period text, time_zone text, at timestamptz) returns timestamptz language sql stable as $$
    select case when period = 'lifetime' then timestamptz 'epoch' else date_trunc(period, at, time_zone) end
$$;
create function budget_end(period text, time_zone text, start timestamptz) returns timestamptz language sql stable as $$
    select case when period <> 'lifetime' then ((start at time zone time_zone) + ('1 ' || period)::interval) at time zone time_zone end
$$;

-- What was spent and set aside in one period of a budget, or by one run that brings a budget along. All calls under a
-- budget meet in this row, so it is written once per batch, not per call, and is as narrow as it can be.
create table budget_window (
    id              bigint      generated always as identity primary key, -- rows are locked in its order
    budget          uuid        not null, -- or the run
    run             boolean     not null,
    started         timestamptz not null,
    spent_nano      bigint      not null default 0,
    reserved_nano   bigint      not null default 0,
    spent_tokens    bigint      not null default 0,
    reserved_tokens bigint      not null default 0,
    crossed         int2[]        not null default '{}', -- soft limits that were passed, each once
    crossed_at      timestamptz[] not null default '{}',
    unique (budget, started),
    constraint budget_window_amounts check (spent_nano >= 0 and reserved_nano >= 0 and spent_tokens >= 0 and reserved_tokens >= 0)
) with (fillfactor = 30, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

-- Serves the sweep of ended runs' budgets.
create index budget_window_run on budget_window (budget) where run;

-- Money set aside for a call that is being made. Settling deletes the row, which is what makes it happen once. A call
-- whose node died before it was settled is taken as spent in full: lost. That is corrected if the node turns out to
-- live. Void: whoever reserved never heard whether it was done, and does not want it any more. There are no foreign
-- keys: each would lock rows that every call shares.
create table reservation (
    node       uuid        not null,
    id         uuid        not null,
    state      text        not null check (state in ('held', 'lost', 'void')),
    nano       bigint      not null,
    tokens     bigint      not null,
    windows    bigint[]    not null, -- where it is reserved: a call that outlives the period is settled there as well
    created_at timestamptz not null default now(),
    tenant_id  uuid,
    run_id     uuid,                 -- null: the call belongs to no run
    step       text        not null default '',
    gen        int2        not null default 0,
    attempt    int2        not null default 0,
    primary key (node, id)
) with (fillfactor = 90, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0);

-- Calls that belong to no run: a line for each request. Those of runs stand in the runs' events.
create table call (
    id                   uuid        primary key, -- time-ordered
    tenant_id            uuid        not null,
    at                   timestamptz not null,    -- when it was settled
    node                 uuid        not null,
    hold                 uuid,                    -- the reservation it was made under
    agent                text        not null,
    workflow             text        not null,
    labels               jsonb,
    provider             text        not null,
    model                text        not null,
    simulated            boolean     not null,
    class                text        not null,    -- of the error; empty: answered
    message              text        not null,
    depth                int4        not null,
    try                  int4        not null,
    ms                   int8        not null,
    first_token_ms       int8        not null,
    tokens_input         int8        not null,    -- the types are disjoint
    tokens_cache_read    int8        not null,
    tokens_cache_write   int8        not null,
    tokens_cache_write_1h int8       not null,
    tokens_output        int8        not null,
    tokens_reasoning     int8        not null,
    tokens_audio_input   int8        not null,
    tokens_audio_output  int8        not null,
    tokens_image_input   int8        not null,
    estimated            boolean     not null,    -- the tokens were counted here
    unpriced             boolean     not null,
    cost_nano            int8        not null,
    baseline_nano        int8        not null,
    cache_saved_nano     int8        not null,
    price                text        not null,    -- the price row that was applied
    rates                jsonb,                   -- its prices in pico-USD per token
    subscription         text        not null,
    rule                 text        not null,
    request_id           text        not null,
    trimmed_tokens       int8        not null,
    hedged               boolean     not null
);

-- Serves reports by label.
create index call_tenant on call (tenant_id, id);

create type call_new as (
    id uuid, tenant_id uuid, at timestamptz, node uuid, hold uuid, agent text, workflow text, labels jsonb,
    provider text, model text, simulated boolean, class text, message text, depth int4, try int4, ms int8,
    first_token_ms int8, tokens_input int8, tokens_cache_read int8, tokens_cache_write int8, tokens_cache_write_1h int8,
    tokens_output int8, tokens_reasoning int8, tokens_audio_input int8, tokens_audio_output int8,
    tokens_image_input int8, estimated boolean, unpriced boolean, cost_nano int8, baseline_nano int8,
    cache_saved_nano int8, price text, rates jsonb, subscription text, rule text, request_id text, trimmed_tokens int8,
    hedged boolean
);

-- Prices that came through the API; they stand before the configured and the built-in ones. Those of a model are put
-- together.
create table price_override (
    tenant_id      uuid        not null references tenant,
    model          text        not null,
    place          int4        not null, -- among the model's, as they were put
    effective_from timestamptz not null,
    body           text        not null, -- a row of the price list as JSON
    updated_at     timestamptz not null default now(),
    primary key (tenant_id, model, place)
);

-- Flat plans: what they cost is spread over the time they hold.
create table subscription (
    tenant_id    uuid        not null references tenant,
    name         text        not null,
    monthly_nano bigint      not null check (monthly_nano >= 0),
    from_at      timestamptz not null,
    until_at     timestamptz check (until_at > from_at),
    updated_at   timestamptz not null default now(),
    primary key (tenant_id, name)
);

-- What nodes tell one another of providers' health: the last of each node, an operator's word apart from what a node
-- found out.
create table breaker (
    id         text        not null, -- provider/model
    node       uuid        not null,
    by_hand    boolean     not null,
    action     text        not null,
    reason     text        not null,
    until_at   timestamptz,
    at         timestamptz not null, -- by the node's clock
    changed_at timestamptz not null default clock_timestamp(),
    primary key (id, node, by_hand)
);

-- Serves the nodes that look for news.
create index breaker_changed on breaker (changed_at);

-- What a batch of bookings sends: the budgets it is about, what is to be reserved under them, and what is to be ended.
create type budget_need as (id uuid, run boolean, limit_nano int8, limit_tokens int8, spent_nano int8, spent_tokens int8);
create type hold_new as (
    id uuid, tenant_id uuid, run_id uuid, step text, gen int2, attempt int2, nano int8, tokens int8, unpriced boolean,
    needs int2[] -- places in the list of budgets, from 1
);
create type hold_end as (id uuid, nano int8, tokens int8, lost boolean);

-- What comes back of it: refused reservations, with the budget that refused and its state; and soft limits passed.
create type booking_note as (
    hold int4, -- place in the list of reservations, from 1; null: a soft limit was passed
    budget uuid, percent int2, unpriced boolean, in_tokens boolean, limit_nano int8, spent_nano int8,
    reserved_nano int8, limit_tokens int8, spent_tokens int8, reserved_tokens int8, resets timestamptz
);

-- Books a batch: what is ended gives its money back first, then each reservation in turn is made in all its budgets or
-- in none. Rows of budget_window are locked in the order of their ids and written once, however many bookings meet in
-- them. A void reservation is one that nobody wants whether it was made or not: its row keeps it from being made late.
-- +goose StatementBegin
create function budget_book(a_node uuid, needs budget_need[], holds hold_new[], ends hold_end[], voids uuid[])
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
                array_agg(case when u.run then u.limit_nano else b.limit_nano end order by u.place),
                array_agg(case when u.run then u.limit_tokens else b.limit_tokens end order by u.place),
                bool_or(w.id is null and (u.run or b.id is not null))
            into n_window, n_nano, n_tokens, missing
            from unnest(needs) with ordinality u(id, run, limit_nano, limit_tokens, spent_nano, spent_tokens, place)
            left join budget b on b.id = u.id and not u.run
            left join budget_window w on w.budget = u.id
                and w.started = case when u.run then timestamptz 'epoch' else budget_start(b.period, b.time_zone, now()) end;
            if missing then
                insert into budget_window (budget, run, started, spent_nano, spent_tokens)
                select u.id, u.run, case when u.run then timestamptz 'epoch' else budget_start(b.period, b.time_zone, now()) end,
                    u.spent_nano, u.spent_tokens
                from unnest(needs) u left join budget b on b.id = u.id and not u.run
                where u.run or b.id is not null order by u.id on conflict do nothing;
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
