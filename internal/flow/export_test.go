package flow

// Lost is the path of a step that is not found by it; empty: each is.
func (r *Run) Lost() Path {
	for s := range r.each {
		if r.at(s.path()) != s {
			return s.path()
		}
	}
	return ""
}
