package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// WorkflowRow is a version of a published workflow.
type WorkflowRow struct {
	Name      string
	Version   int // from 1
	Hash      workflow.Hash
	CreatedAt time.Time
	Body      json.RawMessage // of the definition; in lists nil
}

const putDefinitionSQL = `insert into definition (tenant_id, hash, body) values ($1, $2, $3) on conflict do nothing`

// PutDefinition keeps a definition; it may be put again.
func (db *DB) PutDefinition(ctx context.Context, tenant uuid.UUID, hash workflow.Hash, body json.RawMessage) error {
	_, err := exec(ctx, db.api, "put definition", putDefinitionSQL, tenant, hash[:], string(body))
	return err
}

// Definition reads a definition by its hash.
func (db *DB) Definition(ctx context.Context, tenant uuid.UUID, hash workflow.Hash) (json.RawMessage, error) {
	body, err := one(ctx, db.background, "read definition", pgx.RowTo[string],
		`select body from definition where tenant_id = $1 and hash = $2`, tenant, hash[:])
	if isNoRows(err) {
		return nil, fault.New(fault.KindNotFound, "definition_not_found", "there is no definition %s", hash)
	}
	return json.RawMessage(body), err
}

// Publish makes a definition the latest version of a named workflow. `expect` is the latest version the caller knows
// of: 0 that there is none, -1 that any will do. The content of the latest version published again changes nothing,
// whatever was expected: a request that was sent twice is answered twice.
func (db *DB) Publish(ctx context.Context, tenant uuid.UUID, name string, hash workflow.Hash, body json.RawMessage, expect int) (row WorkflowRow, created bool, err error) {
	err = within(ctx, db.api, "publish workflow", func(tx pgx.Tx) error {
		row, created, err = publish(ctx, tx, tenant, name, hash, body, expect)
		return err
	})
	if err != nil {
		return WorkflowRow{}, false, err
	}
	row.Body = body
	return row, created, nil
}

func publish(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, name string, hash workflow.Hash, body json.RawMessage, expect int) (WorkflowRow, bool, error) {
	// Publishers of one name take turns.
	if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended($1::text || '/' || $2::text, 0))`, tenant.String(), name); err != nil {
		return WorkflowRow{}, false, fmt.Errorf("lock name: %w", err)
	}
	latest, err := one(ctx, tx, "read latest version", scanWorkflow,
		`select name, version, hash, created_at from workflow where tenant_id = $1 and name = $2 order by version desc limit 1`, tenant, name)
	if err != nil && !isNoRows(err) {
		return WorkflowRow{}, false, err
	}
	if latest.Version > 0 && latest.Hash == hash {
		return latest, false, nil
	}
	if expect >= 0 && expect != latest.Version {
		return WorkflowRow{}, false, mismatch(name, latest.Version, expect)
	}
	if _, err := tx.Exec(ctx, putDefinitionSQL, tenant, hash[:], string(body)); err != nil {
		return WorkflowRow{}, false, fmt.Errorf("put definition: %w", err)
	}
	row, err := one(ctx, tx, "insert version", scanWorkflow,
		`insert into workflow (tenant_id, name, version, hash) values ($1, $2, $3, $4) returning name, version, hash, created_at`,
		tenant, name, latest.Version+1, hash[:])
	return row, err == nil, err
}

func mismatch(name string, latest, expect int) error {
	switch {
	case latest == 0:
		return fault.New(fault.KindConflict, "version_mismatch", "there is no workflow %s yet; version %d was expected", name, expect)
	case expect == 0:
		return fault.New(fault.KindConflict, "version_mismatch", "there is a workflow %s already; its latest version is %d", name, latest)
	}
	return fault.New(fault.KindConflict, "version_mismatch", "the latest version of %s is %d; version %d was expected", name, latest, expect)
}

func errNoWorkflow(name string, version int) error {
	if version > 0 {
		return fault.New(fault.KindNotFound, "workflow_not_found", "there is no version %d of a workflow %s", version, name)
	}
	return fault.New(fault.KindNotFound, "workflow_not_found", "there is no workflow %s", name)
}

// Workflow reads a version with its definition; version 0 is the latest.
func (db *DB) Workflow(ctx context.Context, tenant uuid.UUID, name string, version int) (WorkflowRow, error) {
	scan := func(row pgx.CollectableRow) (WorkflowRow, error) {
		var body string
		w, err := scanWorkflowThen(row, &body)
		w.Body = json.RawMessage(body)
		return w, err
	}
	w, err := one(ctx, db.api, "read workflow", scan,
		`select w.name, w.version, w.hash, w.created_at, d.body from workflow w join definition d using (tenant_id, hash)
		where w.tenant_id = $1 and w.name = $2 and ($3 = 0 or w.version = $3) order by w.version desc limit 1`,
		tenant, clean(name), version)
	if isNoRows(err) {
		return WorkflowRow{}, errNoWorkflow(name, version)
	}
	return w, err
}

// Workflows lists the latest version of each name after one, by name.
func (db *DB) Workflows(ctx context.Context, tenant uuid.UUID, after string, limit int) ([]WorkflowRow, error) {
	return collect(ctx, db.api, "list workflows", scanWorkflow,
		`select distinct on (name) name, version, hash, created_at from workflow
		where tenant_id = $1 and name > $2 order by name, version desc limit $3`, tenant, clean(after), min(limit, rowsMax))
}

// WorkflowVersions lists the versions of a workflow below one, newest first; before 0: from the latest.
func (db *DB) WorkflowVersions(ctx context.Context, tenant uuid.UUID, name string, before, limit int) ([]WorkflowRow, error) {
	list, err := collect(ctx, db.api, "list versions", scanWorkflow,
		`select name, version, hash, created_at from workflow
		where tenant_id = $1 and name = $2 and ($3 = 0 or version < $3) order by version desc limit $4`,
		tenant, clean(name), before, min(limit, rowsMax))
	if err == nil && len(list) == 0 && before == 0 {
		return nil, errNoWorkflow(name, 0)
	}
	return list, err
}

func scanWorkflow(row pgx.CollectableRow) (WorkflowRow, error) { return scanWorkflowThen(row) }

// scanWorkflowThen reads the columns of a version that stand before some others.
func scanWorkflowThen(row pgx.CollectableRow, then ...any) (w WorkflowRow, err error) {
	var hash []byte
	err = row.Scan(append([]any{&w.Name, &w.Version, &hash, &w.CreatedAt}, then...)...)
	copy(w.Hash[:], hash)
	w.CreatedAt = w.CreatedAt.UTC()
	return w, err
}
