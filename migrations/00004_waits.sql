-- +goose Up

-- What runs wait for: people, signals, and runs of their own.

-- Whose step started a run. Never changed after the insert, so that an update of the row stays within its page.
alter table run
    add column parent_id   uuid,                    -- null: nobody's
    add column parent_step text not null default '',
    add column depth       int2 not null default 0; -- runs around it

create or replace trigger run_guard before update on run for each row
    when ((old.status in ('succeeded', 'cancelled') and
            (new.status, new.finished_at, new.preview, new.cost_nano, new.owner)
            is distinct from (old.status, old.finished_at, old.preview, old.cost_nano, old.owner))
        or (new.id, new.tenant_id, new.workflow, new.version, new.hash, new.created_at, new.parent_id, new.parent_step, new.depth)
            is distinct from (old.id, old.tenant_id, old.workflow, old.version, old.hash, old.created_at, old.parent_id,
                old.parent_step, old.depth))
    execute function run_guard();

-- What a person is asked, and what they said. The run's owner asks and withdraws; whoever answers locks the row, so that
-- there is one answer.
create table approval (
    id          uuid        primary key,
    tenant_id   uuid        not null,
    run_id      uuid        not null,
    step        text        not null,
    gen         int2        not null, -- generation of the step
    about       text        not null,
    workflow    text        not null,
    title       text        not null,
    show        text        not null, -- JSON, or nothing; so are form, initial and form_sent
    form        text        not null,
    initial     text        not null,
    choices     text[]      not null,
    assignees   text[]      not null, -- empty: anybody
    status      text        not null,
    choice      text        not null default '',
    form_sent   text        not null default '',
    reason      text        not null default '',
    answered_by text        not null default '',
    asked_at    timestamptz not null default now(),
    expires_at  timestamptz,          -- null: never
    answered_at timestamptz,
    constraint approval_status check (status in ('open', 'answered', 'expired', 'withdrawn')),
    constraint approval_answered check ((answered_at is not null) = (status = 'answered'))
);

-- Serves the lists of a tenant, of all statuses or some, newest first: a probe per status, merged.
create index approval_list on approval (tenant_id, status, asked_at, id);
-- Serves the list of one run's.
create index approval_run on approval (run_id, asked_at, id);

-- Serves the count of the open ones, and since when the first has been.
create index approval_open on approval (asked_at) where status = 'open';

-- Runs that are told of signals of a name: from their submission until they end, and again after a resume.
create table signal_wait (
    tenant_id uuid not null,
    name      text not null,
    run_id    uuid not null,
    primary key (tenant_id, name, run_id)
);

-- Serves the end of a run.
create index signal_wait_run on signal_wait (run_id);

-- Signals to whoever waited for them. A row makes that it happens once, and is kept for a while.
create table emitted (
    tenant_id uuid        not null,
    id        text        not null,
    name      text        not null,
    data      text        not null, -- the whole signal as JSON, as runs are told it
    run_id    uuid,                 -- whose step emitted it; null: it came through the API
    told      int         not null, -- runs
    left_off  boolean     not null, -- more waited for it than can be told at once
    at        timestamptz not null default now(),
    primary key (tenant_id, id)
);

-- Serves the sweep of those kept long enough.
create index emitted_age on emitted (at);

-- What a commit sends from now on; nodes of the version before go on sending the former types.
create type run_new_3 as (
    id uuid, tenant_id uuid, created_at timestamptz, version int4, priority int2, workflow text, hash bytea, stakes text,
    mode text, labels jsonb, owned boolean, parent_id uuid, parent_step text, depth int2,
    status text, format int2, stage text, waiting_for text, preview text, error_class text, error_message text,
    error_step text, cost_nano int8, tokens_input int8, tokens_cache_read int8, tokens_cache_write int8,
    tokens_output int8, tokens_reasoning int8, calls int4, unpriced_calls int4, simulated_calls int4, steps_done int4,
    wake_at timestamptz, crashes int2, started_at timestamptz, finished_at timestamptz, baseline_nano int8,
    cache_saved_nano int8, steps_total int4
);
create type run_row_3 as (
    id uuid, release boolean,
    status text, format int2, stage text, waiting_for text, preview text, error_class text, error_message text,
    error_step text, cost_nano int8, tokens_input int8, tokens_cache_read int8, tokens_cache_write int8,
    tokens_output int8, tokens_reasoning int8, calls int4, unpriced_calls int4, simulated_calls int4, steps_done int4,
    wake_at timestamptz, crashes int2, started_at timestamptz, finished_at timestamptz, baseline_nano int8,
    cache_saved_nano int8, steps_total int4
);
create type approval_new as (
    id uuid, tenant_id uuid, run_id uuid, step text, gen int2, about text, workflow text, title text, show text, form text,
    initial text, choices text[], assignees text[], status text, expires_at timestamptz
);
create type approval_end as (id uuid, status text);
create type signal_wait_new as (tenant_id uuid, name text, run_id uuid);
create type definition_new as (tenant_id uuid, hash bytea, body text);
create type emitted_new as (tenant_id uuid, id text, name text, data text, run_id uuid);
