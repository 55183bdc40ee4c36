package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/fermata-run/fermata/api/client"
	"github.com/fermata-run/fermata/internal/workflow"
)

// defaultURL is where `fermata dev` and `fermata serve` listen if they are not told otherwise.
const defaultURL = "http://127.0.0.1:8080"

// remoteFlags say which service a command speaks with.
type remoteFlags struct {
	URL string `env:"FERMATA_URL" default:"http://127.0.0.1:8080" placeholder:"URL" help:"The service to speak with."`
}

// remote is the service a command speaks with.
type remote struct {
	*client.Client
	url string
}

func (f remoteFlags) remote(s *screen) (*remote, error) {
	c, err := client.New(client.Config{URL: f.URL, Retrying: func(cause error, _ time.Duration) {
		if !errors.Is(cause, errTimeout) && !errors.Is(cause, context.Canceled) { // we broke it off ourselves
			s.say("the connection broke, trying again: %v", cause)
		}
	}})
	if err != nil {
		return nil, usageError("--url: %w", err)
	}
	return &remote{Client: c, url: strings.TrimSuffix(f.URL, "/")}, nil
}

// flag is what a command line for the same service needs besides.
func (r *remote) flag() string {
	if r.url == strings.TrimSuffix(cmp.Or(os.Getenv("FERMATA_URL"), defaultURL), "/") {
		return ""
	}
	return " --url " + r.url
}

// link makes a path of the service a URL.
func (r *remote) link(path string) string { return r.url + path }

// whole shows a run with everything there is to show.
func (r *remote) whole(ctx context.Context, id string) (*client.Run, error) {
	return r.Run(ctx, id, client.GetRunParamsIncludeSteps, client.GetRunParamsIncludeProvenance)
}

// fetched gets the published workflows that a definition names. One that is not there is the compiler's to report.
func (r *remote) fetched(ctx context.Context, names []string) (workflow.Fetched, error) {
	lib := workflow.Fetched{}
	for _, ref := range names {
		name, version, ok := workflow.SplitRef(ref)
		if !ok {
			continue
		}
		w, err := r.Workflow(ctx, name, version)
		if exitOfProblem(err) == exitNotFound {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the workflow %s, which the definition names: %w", ref, err)
		}
		lib[ref] = workflow.Published{Ref: workflow.Versioned(w.Name, int(w.Version)), Source: w.Definition}
	}
	return lib, nil
}

// resumePoll is how often a log that has ended is read again, when a resume was asked for and is about to be applied.
const resumePoll = 100 * time.Millisecond

// events gives every event of a run until it has ended, but not before there was one with atLeast as its number: a run
// that is being resumed has ended once already.
func (r *remote) events(ctx context.Context, id string, atLeast int32) iter.Seq2[client.Event, error] {
	return func(yield func(client.Event, error) bool) {
		for after := int32(0); ; {
			for e, err := range r.Watch(ctx, id, after) {
				if !yield(e, err) || err != nil {
					return
				}
				after = e.Seq
			}
			if after >= atLeast {
				return
			}
			select {
			case <-time.After(resumePoll):
			case <-ctx.Done():
				yield(client.Event{}, ctx.Err())
				return
			}
		}
	}
}

type healthcheckCommand struct{ remoteFlags }

// Run asks once.
func (h *healthcheckCommand) Run(ctx context.Context, s *screen) error {
	remote, err := h.remote(s)
	if err != nil {
		return err
	}
	return remote.Ready(ctx)
}

// exitOfProblem finds the exit code of what a service answered.
func exitOfProblem(err error) int {
	var p *client.Problem
	if !errors.As(err, &p) {
		return exitError
	}
	switch p.Status {
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitAuth
	case http.StatusConflict, http.StatusPreconditionFailed, http.StatusPreconditionRequired:
		return exitConflict
	}
	return exitError
}

// tell says what went wrong, and what could be done about it.
func (s *screen) tell(err error) {
	var p *client.Problem
	var dial *net.OpError
	var request *url.Error // of an HTTP client: the database is reached by other means
	switch {
	case errors.As(err, &p):
		s.say("error: %s", describe(p))
	case errors.As(err, &dial) && dial.Op == "dial" && errors.As(err, &request):
		s.say("error: the service cannot be reached: %v\nhelp: start one with `fermata dev`, or name another with --url", err)
	case errors.Is(err, errTimeout):
		s.say("error: timeout")
	default:
		s.say("error: %v", err)
	}
}

// describe tells a problem with all its issues.
func describe(p *client.Problem) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s [%s]", oneLine(p.Detail), p.Code)
	for _, i := range p.Errors {
		if len(p.Errors) == 1 && strings.Contains(p.Detail, i.Detail) {
			break // it is the problem
		}
		b.WriteString("\n  " + oneLine(i.String()))
	}
	if len(p.Actions) > 0 {
		fmt.Fprintf(&b, "\nhelp: the run is %s; what it allows: %s", p.State, strings.Join(p.Actions, ", "))
	}
	if p.Retryable {
		b.WriteString("\nhelp: the same request may succeed later")
	}
	if p.RequestID != "" {
		fmt.Fprintf(&b, "\nrequest: %s", p.RequestID)
	}
	return b.String()
}
