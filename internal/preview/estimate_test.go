package preview_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/preview"
	"github.com/fermata-run/fermata/internal/workflow"
)

func TestX(t *testing.T) {
	g, _ := gateway.New(gateway.Config{})
	for _, f := range []string{"qc-deliverable", "switch", "fanout", "savings"} {
		src, _ := os.ReadFile("../../examples/" + f + ".yaml")
		w, err := workflow.Compile(src)
		if err != nil {
			t.Fatal(err)
		}
		e := preview.Estimate(w, g, nil)
		raw, _ := json.MarshalIndent(e, "", " ")
		fmt.Println(f, e.Cost.Low, e.Cost.High, e.Input, e.Output, e.Calls, e.CallsMax, e.Path, e.Assumptions)
		if f == "switch" {
			fmt.Println(string(raw))
		}
	}
}
