-- +goose NO TRANSACTION
-- +goose Up

-- Serves the list of the runs that the steps of a run started. It is built beside the commits that write to run; what an
-- attempt that was cut left behind goes first.
drop index concurrently if exists run_parent;
create index concurrently run_parent on run (parent_id, id) where parent_id is not null;
