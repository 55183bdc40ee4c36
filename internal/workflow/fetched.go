package workflow

import "strconv"

// Fetched is a Library of workflows that were fetched before they are needed, by the names that NamesOf answers.
type Fetched map[string]Published

// Published is a version of a published workflow.
type Published struct {
	Ref    string // name@version
	Source []byte // it compiled to
}

// Workflow implements Library.
func (f Fetched) Workflow(name string, version int) (ref string, source []byte, ok bool) {
	if version > 0 {
		name = Versioned(name, version)
	}
	p, ok := f[name]
	return p.Ref, p.Source, ok
}

// Versioned is the reference to a version of a workflow.
func Versioned(name string, version int) string { return name + "@" + strconv.Itoa(version) }

// SplitRef takes name or name@version apart; version 0: the latest. False: it is neither.
func SplitRef(ref string) (name string, version int, ok bool) {
	parts := refForm.FindStringSubmatch(ref)
	if parts == nil {
		return "", 0, false
	}
	if parts[2] != "" {
		version = atoi(parts[2])
	}
	return parts[1], version, true
}
