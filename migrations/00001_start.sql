-- +goose Up

-- Names are singular. Ids are UUIDv7, made by the service. Money is in nano-USD (1e-9 US dollars). Times are by the
-- clock of this database. Text that comes from models is text, never jsonb: jsonb refuses NUL escapes, lone surrogates
-- and huge numbers, and reorders keys.

create table tenant (
    tenant_id  uuid        primary key,
    name       text        not null unique,
    created_at timestamptz not null default now()
);

insert into tenant (tenant_id, name) values ('00000000-0000-7000-8000-000000000001', 'default');

-- A definition never changes; a run is pinned to one by its hash. Those submitted inline are kept here too.
create table definition (
    tenant_id  uuid        not null references tenant,
    hash       bytea       not null check (octet_length(hash) = 32), -- SHA-256 of the canonical JSON
    body       text        not null,
    created_at timestamptz not null default now(),
    primary key (tenant_id, hash)
);

-- A published workflow: versions count from 1 without gaps, the highest is the latest.
create table workflow (
    tenant_id  uuid        not null,
    name       text        not null,
    version    int         not null check (version > 0),
    hash       bytea       not null,
    created_at timestamptz not null default now(),
    primary key (tenant_id, name, version),
    foreign key (tenant_id, hash) references definition
);

-- The summary of a run, for lists and for claims; its truth is its events. It is written when the run is submitted,
-- claimed, parked and finished, not per step. There are no foreign keys on purpose: each would lock the same row of
-- tenant or definition in every batch of every node.
create table run (
    id               uuid        not null primary key,
    tenant_id        uuid        not null,
    owner            uuid,                             -- the lease under which a node works on it
    created_at       timestamptz not null,
    started_at       timestamptz,                      -- of the first attempt
    finished_at      timestamptz,
    wake_at          timestamptz,                      -- of a waiting run: it is claimable from then on
    cost_nano        bigint      not null default 0,
    tokens_input     bigint      not null default 0,   -- the five types are disjoint
    tokens_cache_read  bigint    not null default 0,
    tokens_cache_write bigint    not null default 0,
    tokens_output    bigint      not null default 0,
    tokens_reasoning bigint      not null default 0,
    version          int         not null,             -- of the workflow; 0: submitted inline
    calls            int         not null default 0,
    unpriced_calls   int         not null default 0,   -- calls whose cost is not in cost_nano
    simulated_calls  int         not null default 0,
    steps_done       int         not null default 0,
    steps_total      int         not null default 0,
    priority         int2        not null,             -- 0 to 9; 9 is claimed first
    crashes          int2        not null default 0,   -- nodes that died while it was at work, since it last got on
    format           int2        not null,             -- the highest version of an event in its log
    status           text        not null,
    workflow         text        not null,
    hash             bytea       not null check (octet_length(hash) = 32),
    stakes           text        not null,
    mode             text        not null,
    stage            text        not null default '',  -- the first step at work
    waiting_for      text        not null default '',
    preview          text        not null default '',  -- the beginning of the input, then of the output
    labels           jsonb,
    error_class      text,
    error_message    text,
    error_step       text,

    constraint run_status check (status in
        ('queued', 'running', 'waiting', 'cancelling', 'succeeded', 'failed', 'cancelled', 'quarantined')),
    constraint run_finished check ((finished_at is not null) = (status in ('succeeded', 'failed', 'cancelled'))),
    -- A cancelling run loses its owner when the owner dies, a failed one is owned while its resume is being applied.
    constraint run_owner check (case
        when status = 'running' then owner is not null
        when status in ('cancelling', 'failed') then true
        else owner is null end),
    constraint run_error check ((error_class is null) = (error_message is null)),
    constraint run_priority check (priority between 0 and 9),
    constraint run_crashes check (crashes >= 0),
    constraint run_counts check (calls >= 0 and unpriced_calls >= 0 and simulated_calls >= 0 and steps_done >= 0 and steps_total >= 0)
) with (fillfactor = 80);

-- An update that changes a column of any index, or of its where, writes an entry into every index it qualifies for.
-- A run that is submitted, owned at once and finished qualifies for the primary key and the two list indexes only.

-- Serves claims: runs ready for any node, by priority and age; those that saw nodes die come one at a time.
create index run_claim on run (crashes, priority desc, id) where owner is null and status in ('queued', 'cancelling');
-- Serves claims: parked runs whose time has come, priority by priority.
create index run_wake on run (priority, wake_at) where status = 'waiting';
-- Serves takeover, reconciliation and the count of runs at work: the runs of a lease.
create index run_owner on run (owner) where owner is not null;
-- Serves the count of quarantined runs.
create index run_quarantined on run (id) where status = 'quarantined';
-- Serves the lists of a tenant, of all statuses or some, newest first: a probe per status, merged.
create index run_list on run (tenant_id, status, id);
-- Serves the lists of one workflow's runs, newest first.
create index run_workflow on run (tenant_id, workflow, id);

-- +goose StatementBegin
create function run_guard() returns trigger language plpgsql as $$
begin
    if old.status in ('succeeded', 'cancelled') then
        raise exception 'run % is % and cannot change', old.id, old.status using errcode = 'integrity_constraint_violation';
    end if;
    raise exception 'run % cannot change what it was submitted with', old.id using errcode = 'integrity_constraint_violation';
end $$;
-- +goose StatementEnd

-- Final is final, and a run keeps what it was submitted with. Labels may be edited.
create trigger run_guard before update on run for each row
    when ((old.status in ('succeeded', 'cancelled') and
            (new.status, new.finished_at, new.preview, new.cost_nano, new.owner)
            is distinct from (old.status, old.finished_at, old.preview, old.cost_nano, old.owner))
        or (new.id, new.tenant_id, new.workflow, new.version, new.hash, new.created_at)
            is distinct from (old.id, old.tenant_id, old.workflow, old.version, old.hash, old.created_at))
    execute function run_guard();

-- What happened to each run, in order: the truth. Appended by the run's owner, never updated, never indexed further.
-- The columns stand in the order that packs them. Run ids are time-ordered, so partitions by range of run_id are
-- partitions by time, and retention drops them whole.
-- A row is what one decision recorded: its first event in the columns, those that followed from it in more, a JSON list
-- of [kind, step, gen, attempt, data]. "This step succeeded, that one starts" is one row instead of two, which is what
-- a commit costs. The view event_log has a row for each event.
create table event (
    run_id  uuid        not null,
    at      timestamptz not null,
    seq     int4        not null check (seq > 0), -- from 1, without gaps
    gen     int2        not null,                 -- generation of the step; 0: the run itself
    attempt int2        not null,
    v       int2        not null,                 -- version of data's shape
    kind    text        not null,
    step    text        not null,                 -- empty: the run itself
    data    text        not null,                 -- JSON, or nothing
    more    text        not null default '',      -- the events seq + 1, seq + 2 …, or nothing
    primary key (run_id, seq)
) partition by range (run_id);

-- lz4 costs half of pglz on large outputs; a server built without it keeps pglz.
-- +goose StatementBegin
do $$
begin
    if exists (select from pg_settings where name = 'default_toast_compression' and 'lz4' = any(enumvals)) then
        alter table event alter column data set compression lz4;
        alter table definition alter column body set compression lz4;
    end if;
end $$;
-- +goose StatementEnd

create table event_other partition of event default;

-- One row for each event; tx is the transaction that wrote it. Bodies are taken apart by json_array_elements alone: the
-- operators (->, ->>) stumble over the NUL escapes and lone surrogates that models emit.
create view event_log as
select run_id, seq, at, gen, attempt, v, kind, step, data, xmin as tx from event
union all
select e.run_id, e.seq + m.n::int4, e.at, f.gen::int2, f.attempt::int2, e.v, f.kind::json #>> '{}', f.step::json #>> '{}',
    coalesce(f.data, ''), e.xmin
from event e cross join lateral json_array_elements(e.more::json) with ordinality m(x, n)
cross join lateral (
    select min(x::text) filter (where n = 1) as kind, min(x::text) filter (where n = 2) as step,
        min(x::text) filter (where n = 3) as gen, min(x::text) filter (where n = 4) as attempt,
        min(x::text) filter (where n = 5) as data
    from json_array_elements(m.x) with ordinality f(x, n)) f
where e.more <> '';

-- +goose StatementBegin
create function event_guard() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and current_setting('fermata.retention', true) = 'on' then
        return old;
    end if;
    raise exception 'events are append-only' using errcode = 'integrity_constraint_violation';
end $$;
-- +goose StatementEnd

-- A trigger before update or delete costs an insert nothing.
create trigger event_guard before update or delete on event for each row execute function event_guard();

-- The lowest UUIDv7 of an instant.
-- +goose StatementBegin
create function uuid_from(at timestamptz) returns uuid language sql immutable strict as $$
    select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '0000' || '0000' || '000000000000')::uuid
$$;
-- +goose StatementEnd

-- Makes the monthly partition (UTC) of an instant, unless it is there. A month whose runs are already in the default
-- partition stays there. The table is built aside and attached, which does not stop the writers of other partitions.
-- +goose StatementBegin
create function event_partition(at timestamptz) returns boolean language plpgsql as $$
declare
    month timestamp := date_trunc('month', at at time zone 'UTC');
    low   uuid := uuid_from(month at time zone 'UTC');
    high  uuid := uuid_from((month + interval '1 month') at time zone 'UTC');
    name  text := 'event_' || to_char(month, 'YYYY_MM');
begin
    perform pg_advisory_xact_lock(hashtext('fermata event partitions'));
    if to_regclass(name) is not null or exists (select from event_other where run_id >= low and run_id < high) then
        return false;
    end if;
    execute format('create table %I (like event including all)', name);
    execute format('alter table event attach partition %I for values from (%L) to (%L)', name, low, high);
    return true;
end $$;
-- +goose StatementEnd

select event_partition(now()), event_partition(now() + interval '1 month');

-- Messages to a run. A sender only inserts; the run's owner deletes them in the batch that records what they cause.
-- Never paged by id: ids are given out before they are committed.
create table inbox (
    id     bigint      generated always as identity primary key,
    run_id uuid        not null,
    at     timestamptz not null default now(),
    kind   text        not null,
    data   text        not null -- JSON, or nothing
);

-- Serves the load of a claimed run.
create index inbox_run on inbox (run_id);

-- A process of the service, since its start.
create table node (
    id            uuid        primary key,
    name          text        not null,
    address       text        not null,
    version       text        not null,
    capacity      int         not null,
    registered_at timestamptz not null default now()
);

-- Serves a restart: the former nodes of the same name.
create index node_name on node (name);

-- The fence: every commit locks its own lease at its epoch, and writes nothing if it is gone. Ids are never reused.
create table lease (
    id        uuid        primary key,
    node      uuid        not null references node,
    epoch     bigint      not null,
    since     timestamptz not null, -- renewed without a break since then
    until     timestamptz not null,
    closed_at timestamptz,          -- by a takeover, or by its own node when it drained
    drained   boolean     not null default false -- closed by its own node: its runs saw no crash
) with (fillfactor = 50, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0);

-- Idempotency keys of requests. Claimed and settled in transactions of their own.
create table idempotency (
    tenant_id  uuid        not null,
    route      text        not null,
    key        text        not null,
    run_id     uuid        not null, -- reserved by the first claim, the same for all
    body_hash  bytea       not null check (octet_length(body_hash) = 32),
    created_at timestamptz not null default now(),
    claimed_at timestamptz not null default now(), -- by who is at it
    status     int,                                -- of the answer; null: in flight
    header     text,                               -- JSON object
    body       bytea,
    constraint idempotency_settled check ((status is null) = (header is null) and (status is null) = (body is null)),
    primary key (tenant_id, route, key)
);

-- Serves the sweep of keys kept long enough.
create index idempotency_age on idempotency (created_at);

-- What was spent, by the hour. The lease in the key keeps shards from fighting over rows.
create table spend (
    hour               timestamptz not null,
    tenant_id          uuid    not null,
    lease              uuid    not null,
    simulated          boolean not null,
    workflow           text    not null,
    agent              text    not null,
    provider           text    not null,
    model              text    not null,
    calls              bigint  not null,
    unpriced           bigint  not null,
    tokens_input       bigint  not null,
    tokens_cache_read  bigint  not null,
    tokens_cache_write bigint  not null,
    tokens_output      bigint  not null,
    tokens_reasoning   bigint  not null,
    cost_nano          bigint  not null,
    primary key (hour, tenant_id, workflow, agent, provider, model, simulated, lease)
) with (fillfactor = 70);

-- What a commit sends: an array of each. A change of shape makes a new type, so that nodes of the version before can
-- go on sending the old one.
create type event_new as (
    run_id uuid, at timestamptz, seq int4, gen int2, attempt int2, v int2, kind text, step text, data text, more text
);
create type run_new as (
    id uuid, tenant_id uuid, created_at timestamptz, version int4, steps_total int4, priority int2, workflow text,
    hash bytea, stakes text, mode text, labels jsonb, owned boolean,
    status text, format int2, stage text, waiting_for text, preview text, error_class text, error_message text,
    error_step text, cost_nano int8, tokens_input int8, tokens_cache_read int8, tokens_cache_write int8,
    tokens_output int8, tokens_reasoning int8, calls int4, unpriced_calls int4, simulated_calls int4, steps_done int4,
    wake_at timestamptz, crashes int2, started_at timestamptz, finished_at timestamptz
);
create type run_row as (
    id uuid, release boolean,
    status text, format int2, stage text, waiting_for text, preview text, error_class text, error_message text,
    error_step text, cost_nano int8, tokens_input int8, tokens_cache_read int8, tokens_cache_write int8,
    tokens_output int8, tokens_reasoning int8, calls int4, unpriced_calls int4, simulated_calls int4, steps_done int4,
    wake_at timestamptz, crashes int2, started_at timestamptz, finished_at timestamptz
);
create type inbox_new as (run_id uuid, kind text, data text);
create type spend_new as (
    hour timestamptz, tenant_id uuid, workflow text, agent text, provider text, model text, simulated boolean,
    calls int8, unpriced int8, tokens_input int8, tokens_cache_read int8, tokens_cache_write int8, tokens_output int8,
    tokens_reasoning int8, cost_nano int8
);
