package flow

import "slices"

// runMoves are the legal moves of a run's status in the log. Queued and waiting are places between claims that only
// the summary row knows; the fold of a run that can go on is running.
var runMoves = map[RunStatus][]RunStatus{
	"":                  {RunStatusRunning},
	RunStatusRunning:    {RunStatusSucceeded, RunStatusFailed, RunStatusCancelling},
	RunStatusCancelling: {RunStatusCancelled},
	RunStatusFailed:     {RunStatusRunning},
	RunStatusSucceeded:  nil,
	RunStatusCancelled:  nil,
}

// stepMoves are the legal moves of a step's status within one generation; a resume opens a new generation.
var stepMoves = map[StepStatus][]StepStatus{
	StepStatusPending: {
		StepStatusRunning, StepStatusRetrying, StepStatusWaiting, StepStatusSucceeded, StepStatusFailed, StepStatusSkipped,
	},
	StepStatusRunning: {
		StepStatusRetrying, StepStatusWaiting, StepStatusSucceeded, StepStatusFailed, StepStatusSkipped, StepStatusCancelled,
	},
	StepStatusRetrying: {
		StepStatusRunning, StepStatusWaiting, StepStatusSucceeded, StepStatusFailed, StepStatusSkipped, StepStatusCancelled,
	},
	StepStatusWaiting: {
		StepStatusRunning, StepStatusRetrying, StepStatusSucceeded, StepStatusFailed, StepStatusSkipped, StepStatusCancelled,
	},
	StepStatusSucceeded: nil,
	StepStatusFailed:    nil,
	StepStatusSkipped:   nil,
	StepStatusCancelled: nil,
}

// Settled reports whether nothing more happens to the step in this generation.
func (s StepStatus) Settled() bool { return len(stepMoves[s]) == 0 }

// Ended reports whether the run goes on only by a resume, or never.
func (s RunStatus) Ended() bool {
	return s == RunStatusSucceeded || s == RunStatusFailed || s == RunStatusCancelled
}

func canMove[S comparable](moves map[S][]S, from, to S) bool { return slices.Contains(moves[from], to) }
