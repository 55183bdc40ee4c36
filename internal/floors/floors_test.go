// Package floors keeps the house standing: it holds no code, only the test that each package imports from lower floors.
package floors

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/fermata-run/fermata"

// aside is for packages that are no floor: whoever needs them may import them, and they may import what they need.
const aside = -1

// floors is the house: a package imports only from lower floors. Packages of one family (a package and the ones in
// its folder) may import each other, and so may the ones on the ground.
var floors = map[string]int{
	"cmd/fermata": 6,

	"api": 5, "api/client": 5, "internal/bench": 5, "internal/rehearsal": 5,

	"internal/engine": 4, "internal/worker": 4, "internal/ledger": 4, "internal/peers": 4, "internal/incident": 4,

	"internal/store": 3, "internal/gateway": 3, "internal/gateway/provider": 3, "internal/tool": 3,

	"internal/flow": 2, "internal/agent": 2, "internal/preview": 2,

	"internal/workflow": 1, "internal/workflow/schema": 1,

	"internal/fault": 0, "internal/usage": 0, "internal/telemetry": 0,

	"migrations": aside, "internal/pgembed": aside, "internal/pgtest": aside,
	"internal/e2e": aside, "internal/chaos": aside, "internal/floors": aside, "internal/upstream": aside, "examples": aside,
}

// doors are the only ones who may import an aside package from a floor.
var doors = map[string][]string{
	"migrations":        {"internal/store", "internal/pgtest", "cmd/fermata"},
	"internal/pgembed":  {"internal/pgtest", "cmd/fermata"},
	"internal/upstream": {"internal/bench", "cmd/fermata"},
	"examples":          {"cmd/fermata"},
}

// pure packages are told everything: they have no clock, no IO and nothing to cancel.
var (
	pure      = []string{"internal/workflow", "internal/flow", "internal/agent", "internal/preview"}
	notInPure = []string{"context", "os", "net", "database", "math/rand", "crypto/rand", "log", "syscall", "embed"}
	clock     = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}
)

// fences say which of our packages may import a module, their subpackages included: one place each.
var fences = map[string][]string{
	"github.com/jackc/pgx":          {"internal/store", "internal/pgembed", "migrations", "cmd/fermata"},
	"github.com/pressly/goose":      {"internal/store", "migrations"},
	"github.com/sashabaranov":       {"internal/gateway"},
	"github.com/failsafe-go":        {"internal/gateway"},
	"cel.dev":                       {"internal/workflow"},
	"go.opentelemetry.io":           {"internal/telemetry", "internal/gateway", "api"},
	"github.com/tiktoken-go":        {"internal/gateway"},
	"github.com/santhosh-tekuri":    {"internal/workflow"},
	"github.com/go-chi/chi":         {"api"},
	"github.com/getkin/kin-openapi": {"api"},
	"github.com/oapi-codegen":       {"api"},
	"github.com/prometheus":         {"internal/telemetry", "cmd/fermata"},
	"github.com/alecthomas/kong":    {"cmd/fermata"},
}

// listed is what go list says of a package.
type listed struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

// ours lists the packages of this module, by their path within it.
func ours(t *testing.T) map[string]listed {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports,Standard", "./...")
	list.Dir = filepath.Join("..", "..")
	out, err := list.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	packages := map[string]listed{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		if own, ok := strings.CutPrefix(p.ImportPath, module+"/"); ok {
			packages[own] = p
		}
	}
}

func TestEachPackageHasAFloor(t *testing.T) {
	packages := ours(t)
	if len(packages) < 5 {
		t.Fatalf("go list found %d packages: is this the root of the module?", len(packages))
	}
	for own := range packages {
		if _, ok := floors[own]; !ok {
			t.Errorf("%s has no floor: give it one in the table, and in ARCHITECTURE.md", own)
		}
	}
}

func TestImportsGoDown(t *testing.T) {
	for own, p := range ours(t) {
		for _, imported := range p.Imports {
			if dep, ok := strings.CutPrefix(imported, module+"/"); ok {
				if why := refused(own, dep); why != "" {
					t.Errorf("%s imports %s: %s", own, dep, why)
				}
			}
		}
	}
}

// refused says why own may not import dep, or nothing.
func refused(own, dep string) string {
	from, to := floors[own], floors[dep]
	switch {
	case family(own, dep) || from == aside:
		return ""
	case to == aside:
		if slices.Contains(doors[dep], own) {
			return ""
		}
		return "it stands aside"
	case to < from || from == 0 && to == 0:
		return ""
	case to == from:
		return "it is a neighbour on the same floor"
	}
	return "it is a floor above"
}

func family(a, b string) bool {
	return strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/")
}

func TestTheRulesDoNoIO(t *testing.T) {
	packages := ours(t)
	for _, own := range pure {
		p, ok := packages[own]
		if !ok {
			t.Errorf("%s is not there", own)
		}
		for _, imported := range p.Imports {
			for _, banned := range notInPure {
				if within(imported, banned) {
					t.Errorf("%s imports %s: the rules are told, they do not ask", own, imported)
				}
			}
		}
	}
}

// What no import gives away: a goroutine, and a look at the clock.
func TestTheRulesStartNothingAndAreToldTheTime(t *testing.T) {
	for _, own := range pure {
		files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(own), "*.go"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: no files (%v)", own, err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			positions := token.NewFileSet()
			file, err := parser.ParseFile(positions, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s starts a goroutine", positions.Position(n.Pos()))
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, n.Sel.Name) {
						t.Errorf("%s looks at the clock: time.%s", positions.Position(n.Pos()), n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

func TestModulesHaveOnePlace(t *testing.T) {
	for own, p := range ours(t) {
		if floors[own] == aside {
			continue
		}
		for _, imported := range p.Imports {
			for module, places := range fences {
				if within(imported, module) && !slices.ContainsFunc(places, func(place string) bool { return within(own, place) }) {
					t.Errorf("%s imports %s, which is for %s", own, imported, strings.Join(places, ", "))
				}
			}
		}
	}
}

func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// The rules of this test are tested too: a table that refuses nothing guards nothing.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		own, dep string
		want     bool // refused
	}{
		{"internal/flow", "internal/workflow", false},
		{"internal/workflow", "internal/flow", true},
		{"internal/flow", "internal/agent", true},
		{"internal/store", "internal/gateway", true},
		{"internal/gateway", "internal/gateway/provider", false},
		{"internal/gateway/provider", "internal/store", true},
		{"internal/telemetry", "internal/usage", false},
		{"internal/engine", "internal/pgtest", true},
		{"internal/engine", "internal/worker", true},
		{"internal/pgtest", "internal/pgembed", false},
		{"cmd/fermata", "internal/pgembed", false},
		{"api", "internal/engine", false},
		{"internal/engine", "api", true},
	} {
		if got := refused(c.own, c.dep); (got != "") != c.want {
			t.Errorf("%s importing %s: %q, want refused %t", c.own, c.dep, got, c.want)
		}
	}
}
