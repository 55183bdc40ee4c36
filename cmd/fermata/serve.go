package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/fermata-run/fermata/internal/pgembed"
)

// serverFlags say how the service runs, however it was started.
type serverFlags struct {
	Listen       string        `env:"FERMATA_LISTEN" default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where to listen; port 0 takes a free one."`
	Config       string        `env:"FERMATA_CONFIG" placeholder:"FILE" help:"A YAML file that names model providers."`
	Node         string        `env:"FERMATA_NODE" placeholder:"NAME" help:"The name of this node, its own and the same after a restart; host:port if not given."`
	Shards       int           `env:"FERMATA_SHARDS" placeholder:"N" help:"Shards of this node."`
	Workers      int           `env:"FERMATA_WORKERS" placeholder:"N" help:"Attempts at work at once on this node."`
	DrainTimeout time.Duration `env:"FERMATA_DRAIN_TIMEOUT" default:"60s" placeholder:"DURATION" help:"How long attempts at work may go on after a signal to stop."`
	LogLevel     slog.Level    `env:"FERMATA_LOG_LEVEL" default:"info" placeholder:"debug|info|warn|error" help:"The least important lines that are logged."`

	InsecureNoAuth    bool `help:"Listen where strangers may reach the service, though it has no API keys."`
	NoIncidents       bool `help:"Let agents go on that have failed three times alike; without it their steps wait until somebody has looked."`
	AllowUnsafeCommit bool `help:"Take a database with synchronous_commit off: a crash of it may lose what was acknowledged."`
}

// main makes the service's configuration of the flags.
func (f serverFlags) main(s *screen) (MainConfig, error) {
	if err := checkListen(f.Listen, f.InsecureNoAuth); err != nil {
		return MainConfig{}, err
	}
	c := MainConfig{
		Listen: f.Listen, Node: f.Node, Shards: f.Shards, Workers: f.Workers, DrainTimeout: f.DrainTimeout,
		AllowUnsafeCommit: f.AllowUnsafeCommit, NoIncidents: f.NoIncidents, Log: newLog(s.err, s.talkTTY, f.LogLevel), Build: build(),
	}
	var file configFile
	if f.Config != "" {
		var err error
		if file, err = readConfig(f.Config); err != nil {
			return c, err
		}
	}
	c.Models = file
	c.Models.Providers = chooseProviders(file.Providers, os.LookupEnv)
	return c, nil
}

type serveCommand struct {
	serverFlags
	DatabaseURL string `env:"DATABASE_URL" placeholder:"URL" help:"The Postgres to work on: postgres://…"`
}

// Run serves until a signal comes, then drains.
func (c *serveCommand) Run(ctx context.Context, s *screen) error {
	if c.DatabaseURL == "" {
		return usageError("serve needs a Postgres: --database-url or DATABASE_URL; to try it without: fermata dev")
	}
	cfg, err := c.main(s)
	if err != nil {
		return err
	}
	cfg.DatabaseURL = c.DatabaseURL
	m := NewMain(cfg)
	m.warnSimulated()
	go announce(ctx, s, m, nil)
	return m.Run(ctx)
}

// devFlags are of the commands that bring their own Postgres.
type devFlags struct {
	DataDir string `env:"FERMATA_DATA_DIR" type:"path" placeholder:"DIR" help:"Where the embedded Postgres keeps its data."`
}

func (f devFlags) postgres(log *slog.Logger) pgembed.Config {
	dir := pgembed.DefaultDir()
	if f.DataDir != "" {
		dir = filepath.Join(f.DataDir, "postgres")
	}
	return pgembed.Config{Dir: dir, Log: log}
}

type devCommand struct {
	serverFlags
	devFlags
	DatabaseURL string `env:"DATABASE_URL" placeholder:"URL" help:"A Postgres to work on instead of the embedded one."`
}

// Run serves on an embedded Postgres until a signal comes.
func (c *devCommand) Run(ctx context.Context, s *screen) error {
	cfg, err := c.main(s)
	if err != nil {
		return err
	}
	cfg.DatabaseURL = c.DatabaseURL
	if c.DatabaseURL == "" {
		embedded := c.postgres(cfg.Log)
		cfg.Embedded = &embedded
	}
	m := NewMain(cfg)
	m.warnSimulated()
	go announce(ctx, s, m, func() {
		s.print("\nnext:  %s run -f examples/qc-deliverable.yaml -i task=@examples/briefs/cold-chain.txt%s", program(), urlFlag(m.URL()))
		s.print("stop:  Ctrl-C")
	})
	return m.Run(ctx)
}

// warnSimulated says once what must not be overlooked.
func (m *Main) warnSimulated() {
	if m.Simulated() {
		m.cfg.Log.Warn("no real model provider is configured: models are simulated (ANTHROPIC_API_KEY, OPENAI_API_KEY …, or --config)")
	}
}

// program is how this one was called, to be said in commands that can be copied.
func program() string { return os.Args[0] }

func urlFlag(url string) string {
	if url == defaultURL {
		return ""
	}
	return " --url " + url
}

// announce says where the service is, once it is ready.
func announce(ctx context.Context, s *screen, m *Main, more func()) {
	select {
	case <-m.Ready():
	case <-ctx.Done():
		return
	}
	if s.json {
		_ = s.sayJSONLine(map[string]string{"url": m.URL(), "database": m.Database(), "models": m.Models()})
		return
	}
	s.print("API       %s/v1/runs", m.URL())
	s.print("Contract  %s/openapi.yaml", m.URL())
	s.print("Metrics   %s/metrics", m.URL())
	s.print("Health    %s/readyz?verbose", m.URL())
	s.print("Database  %s", m.Database())
	s.print("Models    %s", m.Models())
	if more != nil {
		more()
	}
}

// nodeName is the default name of a node: two on one machine differ by their port.
func nodeName(given string, l net.Listener) string {
	if given != "" {
		return given
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "node"
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return host
	}
	return host + ":" + port
}

// databaseName says which database a URL means, without what is secret in it.
func databaseName(url string) string {
	c, err := parseDatabase(url)
	if err != nil {
		return "(unreadable URL)"
	}
	return fmt.Sprintf("%s at %s:%d", c.Database, c.Host, c.Port)
}
