// Command fermata runs workflows of AI agents durably: it is the service, and the client to look at it and steer it.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// cli is every command, in the order of the help.
type cli struct {
	Output string `short:"o" enum:"table,json" default:"table" placeholder:"table|json" help:"How results are shown."`

	Demo  demoCommand  `cmd:"" group:"start" help:"Start everything, run the five-step QC example, show the result."`
	Dev   devCommand   `cmd:"" group:"start" help:"Start the service on a Postgres of its own."`
	Serve serveCommand `cmd:"" group:"start" help:"Start the service on the Postgres of --database-url."`

	Validate validateCommand `cmd:"" group:"runs" help:"Check a workflow definition; needs no service, unless it names published workflows."`
	Explain  explainCommand  `cmd:"" group:"runs" help:"Say what a key of the format is: fermata explain steps.map; needs no service."`
	Schema   schemaCommand   `cmd:"" group:"runs" help:"Print the JSON Schema of workflow definitions, for editors."`
	Plan     planCommand     `cmd:"" group:"runs" help:"Draw a workflow with what it would cost; needs no service, unless it names published workflows."`
	Test     testCommand     `cmd:"" group:"runs" help:"Test a workflow in memory, with scripted models, faults and people; needs no service."`
	Publish  publishCommand  `cmd:"" group:"runs" help:"Publish a workflow: it can be run by its name then, also by other workflows."`
	Run      runCommand      `cmd:"" group:"runs" help:"Start a run."`
	Watch    watchCommand    `cmd:"" group:"runs" help:"Follow a run to its end."`
	Get      getCommand      `cmd:"" aliases:"show" group:"runs" help:"Show a run and its steps (also: show)."`
	List     listCommand     `cmd:"" group:"runs" help:"List runs, newest first."`
	Compare  compareCommand  `cmd:"" group:"runs" help:"Lay two runs side by side."`
	Resume   resumeCommand   `cmd:"" group:"runs" help:"Let a failed run go on; finished steps are kept."`
	Cancel   cancelCommand   `cmd:"" group:"runs" help:"Ask a run to stop."`
	Signal   signalCommand   `cmd:"" group:"runs" help:"Send a signal to a run, or to all that wait for it."`
	Incident incidentCommand `cmd:"" group:"runs" help:"List and resolve incidents: attempts that fail alike and are held."`

	Approvals approvalsCommand `cmd:"" group:"people" help:"List and show what runs ask of people."`
	Approve   approveCommand   `cmd:"" group:"people" help:"Approve what is asked; the run goes on."`
	Reject    rejectCommand    `cmd:"" group:"people" help:"Reject what is asked."`
	Answer    answerCommand    `cmd:"" group:"people" help:"Answer with one of the choices that are shown."`
	Templates templatesCommand `cmd:"" group:"start" help:"List and print the workflows that come with the service."`

	Spend   spendCommand   `cmd:"" group:"money" help:"Show what was spent and what was saved."`
	Cost    costCommand    `cmd:"" group:"money" help:"Show what a run cost, by step and model, or call by call."`
	Budget  budgetCommand  `cmd:"" group:"money" help:"List, set and delete budgets."`
	Models  modelsCommand  `cmd:"" group:"money" help:"List the models with their prices and how they fare."`
	Breaker breakerCommand `cmd:"" group:"money" help:"List, reset, hold and release circuit breakers."`

	Bench   benchCommand   `cmd:"" group:"operations" help:"Measure this build on this machine."`
	Migrate migrateCommand `cmd:"" group:"operations" help:"Bring the database schema up to date, or show where it stands."`
	Version versionCommand `cmd:"" group:"operations" help:"Show which build this is."`

	MockModels mockModelsCommand `cmd:"" name:"mock-models" hidden:""`

	Healthcheck healthcheckCommand `cmd:"" group:"operations" help:"Exit with 0 if the service is ready; for containers without a shell."`
}

const description = "Runs workflows of AI agents, durably, on Postgres.\n\n" +
	"Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 not allowed, 5 conflict, 10 the run failed, 11 it was cancelled, " +
	"124 timeout, 130 interrupted."

// gcPercent lets the heap grow further between collections than Go does by itself: what a node keeps is small (about
// 10 KB a run), what it throws away is much, and collecting it took a fifth of the throughput. GOGC and GOMEMLIMIT hold
// if they are set.
const gcPercent = 400

func main() {
	// The first signal asks for an orderly end. The second one finds the default handler back in place and ends the
	// program at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if _, told := os.LookupEnv("GOGC"); !told {
		debug.SetGCPercent(gcPercent)
	}
	s := newScreen(os.Stdin, os.Stdout, os.Stderr)
	code := run(ctx, os.Args[1:], s)
	stop()
	os.Exit(code)
}

// exited is how kong's own ways out (--help) come back to run.
type exited int

// run does one command and says with which code the program should exit.
func run(ctx context.Context, args []string, s *screen) (code int) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exited:
			code = int(r)
		default:
			panic(r)
		}
	}()
	var c cli
	parser, err := kong.New(
		&c, kong.Name("fermata"), kong.Description(description), kong.Writers(s.out, s.err), kong.UsageOnError(),
		kong.Exit(func(code int) { panic(exited(code)) }), kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.ExplicitGroups([]kong.Group{
			{Key: "start", Title: "Start:"}, {Key: "runs", Title: "Workflows and runs:"}, {Key: "people", Title: "What runs ask of people:"}, {Key: "money", Title: "Models and money:"}, {Key: "operations", Title: "Operations:"},
		}),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(s),
	)
	if err != nil {
		s.say("fermata: %v", err)
		return exitError
	}
	warnUnknownEnv(s, os.Environ())
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		s.say("fermata: %v\nhelp: %s --help", err, commandOf(err))
		return exitUsage
	}
	s.json = c.Output == "json"
	return s.end(ctx, parsed.Run())
}

// commandOf is the command line that a mistake was made in, as far as it was understood.
func commandOf(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context.Selected() != nil {
		path, _, _ := strings.Cut(parse.Context.Selected().Path(), " (") // behind it are its other names
		return "fermata " + path
	}
	return "fermata"
}

// end tells an error, if there is one, and finds its exit code.
func (s *screen) end(ctx context.Context, err error) int {
	code := codeOf(ctx, err)
	var quiet *runEnded
	switch {
	case err == nil || errors.As(err, &quiet): // what there is to say of the run was shown
	case code == exitInterrupted:
		s.say("interrupted")
	default:
		s.tell(err)
	}
	return code
}

// readAll reads what a person piped in, with a limit.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, usageError("more than %d bytes", limit)
	}
	return b, nil
}
