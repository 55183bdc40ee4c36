package main

import (
	"context"
	"io/fs"
	"strings"

	"github.com/fermata-run/fermata/examples"
)

// templates are the workflows that come with the program.
func templates() fs.FS {
	dir, err := fs.Sub(examples.FS, "templates")
	if err != nil { // the name is right
		panic(err)
	}
	return dir
}

type templatesCommand struct {
	Ls   templateListCommand `cmd:"" default:"withargs" help:"List the workflows that come with the service."`
	Show templateShowCommand `cmd:"" help:"Print the definition of one, to be changed and published: fermata templates show NAME > my.yaml"`
}

type templateListCommand struct{ remoteFlags }

// Run lists templates.
func (c *templateListCommand) Run(ctx context.Context, s *screen) error {
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	list, err := remote.Templates(ctx)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(list)
	}
	rows := make([][]string, len(list))
	for i, t := range list {
		rows[i] = []string{t.Name, strings.Join(t.For, " "), oneLine(t.Title)}
	}
	return s.table([]string{"TEMPLATE", "FOR", "WHAT IT DOES"}, rows)
}

type templateShowCommand struct {
	remoteFlags
	Name string `arg:"" help:"As in the list."`
}

// Run prints a definition, and nothing else, so that it can be piped into a file.
func (c *templateShowCommand) Run(ctx context.Context, s *screen) error {
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	t, err := remote.Template(ctx, c.Name)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(t)
	}
	s.print("%s", strings.TrimSuffix(t.Definition, "\n"))
	if len(t.Input) > 0 {
		s.say("try it:  %s run --template %s -i @FILE%s, where FILE has %s", program(), t.Name, remote.flag(), oneLine(string(t.Input)))
	}
	return nil
}
