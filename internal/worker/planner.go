package worker

import "github.com/fermata-run/fermata/internal/flow"

func (j *job) plan() *flow.Outcome { return j.end(fail(classInternal, "no plans yet")) }
