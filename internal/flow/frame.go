package flow

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// frame is one instance of a body: of the workflow itself, of an item of a map, or of an iteration of a loop.
type frame struct {
	body   *workflow.Body
	owner  *step  // the map or loop; nil: the run
	n      int    // which item, from 0, or iteration, from 1
	steps  []step // by slot
	undone int    // top-level steps that are not settled

	ended   bool
	failure *Failure        // of an item
	output  json.RawMessage // as it was recorded; nil: that of the last listed step
	value   any             // decoded, once an expression reads it
	decoded bool
}

// todo is what may go on: a step, or a frame whose steps are all settled.
type todo struct {
	step  *step
	frame *frame
}

// many is what a map or a loop has of its body.
type many struct {
	items  json.RawMessage // of a map
	values []any           // the items decoded, once an expression reads one
	frames []*frame        // by item; by iteration, the first at 0
	next   int             // map: the item that begins next
	active int             // frames that have not ended
	failed int             // items

	base  int // loop: iterations before it was last reopened
	met   bool
	best  int // loop: the frame with the highest score; -1: none has one
	score float64
}

// step is the state of one step of a frame. There may be a hundred thousand in a run: what is of no use any more when one
// is settled stands in work.
type step struct {
	def       *workflow.Step
	frame     *frame
	at        Path // worked out when it is first asked for
	status    StepStatus
	gen       int16
	attempt   int16
	waitingOn int // edges not settled
	inside    int // group, switch: steps of the chosen case not settled
	chosen    int // switch: the case that runs, caseUnchosen or caseNone
	many      *many
	*work     // nil: it is settled

	startSeq  int32 // of the event that started the attempt at work
	endSeq    int32 // of the event that settled it
	startedAt time.Time
	beganAt   time.Time // of the attempt at work, or the last one
	endedAt   time.Time

	duty    Duty            // of the attempt at work, or the next one
	rule    int             // of on_error, from 1, that gave it
	agent   string          // who works at it, where the definition leaves that open
	instead *workflow.Agent // who works at it at this level of the ladder
	chain   *workflow.Chain // or who is asked
	answer  *Answered
	plan    *Planned
	child   *Child

	last     *Succeeded      // of a succeeded step, but for the output; never changed
	raw      json.RawMessage // its output; nil: it is put together when it is first asked for
	value    any             // decoded, once an expression reads it
	decoded  bool
	failures []Failure // of the attempts of this generation, the final one included
	skipped  string
	sum      usage.Sum    // of its calls, of the runs that it started, and of all inside it
	limit    *stepLimits  // of one with a budget: what of that it may spend, from its first start on
	calls    []usage.Call // of all attempts and generations
	best     int          // of calls: whose answer was taken below the gate
}

// work is what a step has until it is settled.
type work struct {
	input    json.RawMessage // rendered; lost with the memory and rendered again by a claim
	feedback string
	turns    []Turn
	earlier  int   // of calls: those of generations before
	begun    int   // of calls: those made when the attempt at work began
	base     int16 // attempts before they were counted afresh

	retryAt time.Time
	queued  bool     // that time has come: it waits for a free place
	held    string   // what the attempt waits for; empty: it is not held
	refusal *Failure // that holds it
	holds   int      // times an attempt was held
	stale   bool     // since the attempt started it was told that held attempts may go on: a refusal may be from before

	waits        *Waiting
	waitingSince time.Time

	fellBack  bool // on_error has given it to somebody else
	escalated bool // somebody was asked to decide
	about     int  // of failures: what they were asked about
	refused   json.RawMessage
	replans   int
	replan    *Replan
}

// bare is the outcome that has nothing but an output, and that of a step that has none yet.
var bare = &Succeeded{}

// newFrame makes an instance of a body. Its steps are of the generation of what it belongs to.
func (r *Run) newFrame(body *workflow.Body, owner *step, n int) *frame {
	f := &frame{body: body, owner: owner, n: n, steps: make([]step, len(body.Steps)), undone: len(body.Main)}
	gen := int16(1)
	if owner != nil {
		gen = owner.gen
	}
	works := make([]work, len(body.Steps))
	for i, def := range body.Steps {
		f.steps[i] = step{
			def: def, frame: f, status: StepStatusPending, gen: gen, chosen: caseUnchosen, waitingOn: edgesOf(def), work: &works[i], last: bare,
		}
	}
	r.total += len(f.steps)
	return f
}

// edgesOf counts the steps to be settled before one is ready.
func edgesOf(def *workflow.Step) int {
	n := 0
	for _, e := range def.Edges {
		if holds(def, e) {
			n++
		}
	}
	return n
}

// holds: a merge that may be done before all its members are does not wait for each of them.
func holds(def *workflow.Step, e workflow.Edge) bool {
	return e.Why != workflow.EdgeMember || !isEarly(def)
}

func isEarly(def *workflow.Step) bool {
	return def.Merge != nil && (def.Merge.Strategy == workflow.StrategyFirst || def.Merge.Strategy == workflow.StrategyMajority)
}

// openFrame begins a frame: its top-level steps without open edges are ready.
func (r *Run) openFrame(f *frame) {
	for _, def := range f.body.Main {
		if s := &f.steps[def.Slot]; s.waitingOn == 0 && s.status == StepStatusPending {
			r.ready = append(r.ready, todo{step: s})
		}
	}
}

// at finds a step by its path, or nil.
func (r *Run) at(path Path) *step {
	f := r.root
	for {
		id, rest, inside := strings.Cut(path, ".")
		def := f.body.Step(id)
		if def == nil {
			return nil
		}
		s := &f.steps[def.Slot]
		if !inside {
			return s
		}
		number, rest, inside := strings.Cut(rest, ".")
		n, err := strconv.Atoi(number)
		if f = s.instance(n); err != nil || f == nil || !inside || number != strconv.Itoa(n) { // one step has one name
			return nil
		}
		path = rest
	}
}

// instance is a frame of a map or loop by its number, or nil.
func (s *step) instance(n int) *frame {
	if s.def.Loop != nil {
		n--
	}
	if s.many == nil || n < 0 || n >= len(s.many.frames) {
		return nil
	}
	return s.many.frames[n]
}

// path is the step's name within the run.
func (s *step) path() Path {
	if s.at == "" {
		if s.at = s.def.ID; s.frame.owner != nil {
			s.at = s.frame.owner.path() + "." + strconv.Itoa(s.frame.n) + "." + s.def.ID
		}
	}
	return s.at
}

// around is the group or switch around the step in its frame, or else the map or loop the frame belongs to; nil at the top.
func (s *step) around() *step {
	if p := s.def.Parent; p != nil && p.Body == s.def.Body {
		return &s.frame.steps[p.Slot]
	}
	return s.frame.owner
}

// within reports whether the step stands inside another, at any depth.
func (s *step) within(c *step) bool {
	for p := s.around(); p != nil; p = p.around() {
		if p == c {
			return true
		}
	}
	return false
}

// each goes through all steps: a container before what is in it, items and iterations in order.
func (r *Run) each(yield func(*step) bool) { r.root.each(yield) }

func (f *frame) each(yield func(*step) bool) bool {
	for i := range f.steps {
		s := &f.steps[i]
		if !yield(s) {
			return false
		}
		if s.many == nil {
			continue
		}
		for _, inner := range s.many.frames {
			if inner != nil && !inner.each(yield) {
				return false
			}
		}
	}
	return true
}

// isLeaf: attempts are made of it. The others hold steps, or are done by the rules themselves.
func (s *step) isLeaf() bool {
	switch s.def.Kind {
	case workflow.KindAgent, workflow.KindTool, workflow.KindPlan:
		return true
	case workflow.KindMerge:
		return s.def.Merge.Strategy == workflow.StrategyJudge
	default:
		return false
	}
}

// isContainer: steps stand inside.
func (s *step) isContainer() bool {
	switch s.def.Kind {
	case workflow.KindGroup, workflow.KindSwitch, workflow.KindMap, workflow.KindLoop:
		return true
	default:
		return false
	}
}

// beginsAttempt: an event that counts as the beginning of another attempt. A held one goes on under its number, and a
// container has none of its own, unless somebody has to decide about its failure.
func (s *step) beginsAttempt(k Kind, body any) bool {
	switch b := body.(type) {
	case *Started:
		return k == KindStepStarted && s.held == "" && (s.isLeaf() || s.duty != DutyWork)
	case *Waiting:
		return b.Child != nil && s.def.Workflow != nil
	}
	return false
}

// body is what a map or a loop runs again and again.
func (s *step) body() *workflow.Body {
	if s.def.Map != nil {
		return s.def.Map.Body
	}
	return s.def.Loop.Body
}
