package workflow

import "slices"

// KeySet is what an object may hold.
type KeySet struct{ Known, Later []string }

// KeySets are those of all objects of a definition, by the name that the object has under $defs of the format's schema.
func KeySets() map[string]KeySet {
	step := keySet{known: slices.Concat(stepKeys, wordsOf(kinds)), later: stepLater}
	for _, keys := range kindKeys {
		step.known = append(step.known, keys...)
	}
	slices.Sort(step.known)
	step.known = slices.Compact(step.known)
	all := map[string]KeySet{}
	for name, keys := range map[string]keySet{
		"": topKeys, "step": step, "defaults": defaultsKeys, "budget": budgetKeys, "step_budget": stepBudgetKeys,
		"agent": agentKeys, "answer": answerKeys, "contract": contractKeys, "summary": summaryKeys, "context": contextKeys,
		"chain_object": chainKeys, "chain_entry": chainEntryKeys, "gate_object": gateKeys, "check": checkKeys,
		"retry_object": retryKeys, "backoff": backoffKeys, "on_error_entry": onErrorKeys, "rung": rungKeys, "rung_set": rungSetKeys,
		"map": mapKeys, "loop": loopKeys, "group": groupKeys, "case": caseKeys, "merge": mergeKeys,
		"plan": planKeys, "allow": allowKeys, "plan_approval": planApprovalKeys, "workflow": workflowKeys,
		"approval": approvalKeys, "form": formKeys, "wait": waitKeys, "signal": signalKeys, "emit": emitKeys,
	} {
		all[name] = KeySet{keys.known, keys.later}
	}
	return all
}

// Words are the lists of words that the compiler knows, by where the format's schema has them.
func Words() map[string][]string {
	return map[string][]string{
		"/$defs/error_class/enum":                         errorClasses,
		"/$defs/agent/properties/route/enum":              routes,
		"/$defs/merge/properties/strategy/enum":           wordsOf(strategies),
		"/$defs/on_error_entry/properties/do/enum":        wordsOf(actions),
		"/$defs/allow/properties/kinds/items/enum":        wordsOf(kindsPlanned),
		"/$defs/id/pattern":                               {idForm.String()},
		"/$defs/name/pattern":                             {nameForm.String()},
		"/$defs/signal_name/pattern":                      {signalForm.String()},
		"/$defs/step/properties/id/not/enum":              idTaken,
		"/$defs/workflow/properties/name/anyOf/0/pattern": {refForm.String()},
		"/$defs/duration/pattern":                         {durationForm.String()},
	}
}

// Canonical is a definition as JSON, whatever is wrong with it; nil if it cannot be read.
func Canonical(source []byte) []byte {
	root, err := parse(source, &problems{})
	if err != nil {
		return nil
	}
	return root.canonical()
}
