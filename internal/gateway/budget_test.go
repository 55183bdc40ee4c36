package gateway

import (
	"slices"
	"testing"

	"github.com/google/uuid"
)

// The narrow ones come first: whoever is refused is told of what is nearest.
func TestBudgetsOfACaller(t *testing.T) {
	run, parent := uuid.New(), uuid.New()
	caller := Caller{
		Run: run, Budget: &RunBudget{Cost: 5},
		Around: []RunBudget{
			{ID: uuid.New(), Run: run, Step: "build.3.make", Tokens: 1}, {ID: uuid.New(), Run: run, Step: "build"}, // no limit: its share is of none
			{ID: uuid.New(), Run: parent, Step: "sub", Cost: 2}, {ID: parent, Run: parent, Cost: 9},
		},
	}
	var got []string
	for _, b := range caller.Budgets() {
		name, scope := b.Named(run)
		got = append(got, name+" of "+scope)
	}
	if want := []string{"build.3.make of step", "run of run", "sub of step", "run of parent " + parent.String()}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if own := caller.Budgets()[1]; own.ID != run || own.Run != run {
		t.Errorf("its own: %+v", own)
	}
	caller.Run = uuid.Nil
	if list := caller.Budgets(); len(list) != 0 {
		t.Errorf("a call of no run brings %+v", list)
	}
}
