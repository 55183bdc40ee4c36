-- +goose Up

-- Attempts of one kind that failed alike, until that is mended: while a row is open, no node makes more of them than a
-- probe from time to time.
create table incident (
    id          uuid        primary key, -- time-ordered
    tenant_id   uuid        not null references tenant,
    workflow    text        not null,
    agent       text        not null,    -- whose attempts they are; empty: a tool's
    tool        text        not null,
    class       text        not null,
    fingerprint text        not null,    -- what their messages have in common
    count       bigint      not null,    -- failures so far
    samples     jsonb       not null,    -- the first few of them
    node        text        not null,    -- that opened it
    opened_at   timestamptz not null default now(),
    probed_at   timestamptz not null default now(), -- when a probe was last let through
    resolved_at timestamptz,
    resolved_by text        not null default '' check (resolved_by in ('', 'probe', 'operator')),
    note        text        not null default '',
    check ((agent = '') <> (tool = '')),
    check ((resolved_at is null) = (resolved_by = ''))
);

-- One at a time of a kind.
create unique index incident_open on incident (tenant_id, workflow, agent, tool) where resolved_at is null;

-- Serves the list: the open ones first, each part newest first.
create index incident_list on incident (tenant_id, (resolved_at is null), id);
