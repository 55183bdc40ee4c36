package flow_test

import (
	"flag"
	"os"
	"testing"
)

// randomChecks is how many random runs of each definition are made unless -rapid.checks says otherwise: enough to find
// again what they found while they were written, and little enough for every change. Look for new defects with thousands.
const randomChecks = "30"

func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", randomChecks); err != nil { // what the command line says comes later, and counts
		panic(err)
	}
	flag.Parse()
	os.Exit(m.Run())
}
