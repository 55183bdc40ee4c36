package main

import "context"

type publishCommand struct {
	definitionFlag
	remoteFlags
}

// Run publishes a definition. What is wrong with it is told with the file's name, before anything is sent.
func (p *publishCommand) Run(ctx context.Context, s *screen) error {
	source, err := p.read(s)
	if err != nil {
		return err
	}
	if _, err := compile(ctx, s, p.remoteFlags, source); err != nil {
		return definitionError(p.File, err)
	}
	remote, err := p.remote(s)
	if err != nil {
		return err
	}
	w, err := remote.Publish(ctx, source)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(w)
	}
	s.print("%s@%d  %s", w.Name, w.Version, w.Hash)
	s.say("run it:  %s run %s%s", program(), w.Name, remote.flag())
	return nil
}
