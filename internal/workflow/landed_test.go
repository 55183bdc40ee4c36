package workflow_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/workflow"
)

// landed are definitions of each state that the format has been in: as somebody wrote them (.yaml), and as the version of
// then stored them (.json). Runs are pinned to such hashes: nothing here, and no file, is ever changed; a new state of the
// format adds one.
var landed = []struct{ name, hash string }{
	{"1-steps", "8ee25a0f0c403fae12df6aac3eed63960367de9b7074ae49322d3f69f577e8b3"},
	{"2-models", "f9cad17aed2dad90d83824272734e1aa71b0ef1bd433ba34a58c70cfb2f5f7e2"},
	{"3-child", "a1c98ff4e90164dbd558d7c4c6002185bff44c744aed5883182df3579c5a1913"},
	{"3-orchestration", "bb6b8a25116ab045066b9d5446f8cbfc584b80b931d7570675c3704d01cbd1ab"},
}

// carriesNothing is the state in which definitions did not carry the built-in chains they name: compiled today they do.
const carriesNothing = "1-steps"

// TestLanded: whatever was written or stored under an earlier state of the format means the same, under the same hash. There
// is no -update for it.
func TestLanded(t *testing.T) {
	lib := library{}
	for _, l := range landed {
		written, stored := read(t, "testdata/golden/"+l.name+".yaml"), read(t, "testdata/golden/"+l.name+".json")
		if sum := sha256.Sum256([]byte(stored)); hex.EncodeToString(sum[:]) != l.hash {
			t.Errorf("%s.json is not what was stored", l.name)
		}
		loaded, err := workflow.Load([]byte(stored))
		if err != nil {
			t.Fatalf("%s is not loaded any more: %s", l.name, problems(err))
		}
		if loaded.Hash.String() != l.hash || string(loaded.Source) != stored {
			t.Errorf("%s, loaded, is another: %s", l.name, loaded.Hash)
		}
		compiled, err := workflow.CompileWith([]byte(written), lib)
		if err != nil {
			t.Fatalf("%s does not compile any more: %s", l.name, problems(err))
		}
		lib[loaded.Name] = append(lib[loaded.Name], loaded.Source)
		if l.name == carriesNothing {
			continue
		}
		if compiled.Hash.String() != l.hash {
			t.Errorf("%s, compiled, is another: %s\n%s", l.name, compiled.Hash, cmp.Diff(stored, string(compiled.Source)))
		}
		if diff := cmp.Diff(dump(loaded), dump(compiled)); diff != "" {
			t.Errorf("%s means something else compiled than loaded:\n%s", l.name, diff)
		}
	}
}

// TestLandedHasEveryKey: the definition of the newest state has every key that this version runs, where it may stand.
func TestLandedHasEveryKey(t *testing.T) {
	seen := map[string]map[string]bool{} // by properties
	var visit func(v, schema any)
	visit = func(v, schema any) {
		for _, schema := range alternatives(schema) {
			switch v := v.(type) {
			case map[string]any:
				properties := fmt.Sprintf("%p", under(schema, "/properties"))
				if seen[properties] == nil {
					seen[properties] = map[string]bool{}
				}
				for key, inner := range v {
					seen[properties][key] = true
					visit(inner, schemaInside(schema, key))
				}
			case []any:
				for _, inner := range v {
					visit(inner, under(schema, "/items"))
				}
			}
		}
	}
	newest := landed[len(landed)-1].name
	visit(decodedAny(t, workflow.Canonical([]byte(read(t, "testdata/golden/"+newest+".yaml")))), formatTree())
	for name, set := range workflow.KeySets() {
		pointer := "/properties"
		if name != "" {
			pointer = "/$defs/" + name + pointer
		}
		has := seen[fmt.Sprintf("%p", under(formatTree(), pointer))]
		missing := slices.DeleteFunc(slices.Clone(set.Known), func(key string) bool { return has[key] })
		if len(missing) > 0 {
			t.Errorf("%s: no golden definition has %s; the format has a new state: add one", name, strings.Join(missing, ", "))
		}
	}
}

// schemaInside is the schema of what stands under a key.
func schemaInside(schema any, key string) any {
	if s := under(schema, "/properties/"+key); s != nil {
		return s
	}
	return under(schema, "/additionalProperties")
}
