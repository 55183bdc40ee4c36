package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/api/client"
)

// A definition is checked here before it is published, and named with or without -f.
func TestPublish(t *testing.T) {
	write := func(name, definition string) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(definition), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := write("good.yaml", "spec: workflow/v1\nname: hello\nsteps: [{id: a, set: {x: 1}}]\n")
	bad := write("bad.yaml", "spec: workflow/v1\nname: hello\nsteps: [{id: a, sett: {x: 1}}]\n")
	answers := map[string]any{"POST /v1/workflows": client.Workflow{Name: "hello", Version: 3, Hash: "abc"}}
	for _, args := range [][]string{{"publish", good}, {"publish", "-f", good}} {
		if out, talk, code, _ := command(t, answers, args...); code != exitOK || !strings.HasPrefix(out, "hello@3") || !strings.Contains(talk, "run hello") {
			t.Errorf("%v: exit %d: %s%s", args, code, out, talk)
		}
	}
	if _, talk, code, sent := command(t, answers, "publish", bad); code != exitError || len(sent) != 0 || !strings.Contains(talk, "bad.yaml:3:") {
		t.Errorf("exit %d, sent %v: %s", code, sent, talk)
	}
	for _, args := range [][]string{{"publish"}, {"publish", good, "-f", good}, {"validate"}} {
		if _, talk, code, _ := command(t, answers, args...); code != exitUsage || !strings.Contains(talk, "fermata "+args[0]+" --help") {
			t.Errorf("%v: exit %d: %s", args, code, talk)
		}
	}
}
