package rehearsal

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
)

// Limits of a case that sets none.
const (
	eventsMaxDefault = 20_000
	timeMaxDefault   = 60 * 24 * time.Hour
	runsMax          = 1_000
)

// performer does attempts: a worker.
type performer interface {
	Do(ctx context.Context, a flow.Attempt, report func(flow.Report))
}

// stage is where a case is played: its runs in memory, and a time of its own. One goroutine decides; attempts are at work
// beside it.
type stage struct {
	c      *Case
	ctx    context.Context           // of the bubble: it lives as long as the stage
	node   func() (performer, error) // a new one
	work   performer                 // of the node that is up
	script *script
	watch  func(a *actor) // after every decision; nil: nobody does

	began   time.Time // by the clock of the bubble
	actors  []*actor  // in the order they began; the case's run first
	byRun   map[uuid.UUID]*actor
	letters []letter // on their way, by time
	sent    int
	events  int
	marks   map[string]*mark
	crashed map[string]bool // steps after which the node has died
	epoch   int             // raised by each death of the node
	story   []string        // what happened, a line an event
	stuck   []vain          // what is waited for that never comes
	err     error           // that ends the case

	mu      sync.Mutex
	arrived []arrival
	wake    chan struct{}
}

// actor is one run on the stage.
type actor struct {
	run    *flow.Run
	log    []flow.Event
	prefix string                       // before the paths of its steps: the step that began it, and /
	hands  map[int32]context.CancelFunc // of the attempts at work, by the event that ordered each
	idle   int                          // times in a row that it was without money when nothing was at work
}

// arrival is a report that has come.
type arrival struct {
	to     *actor
	epoch  int
	report flow.Report
}

// letter is a message on its way to a run.
type letter struct {
	at   time.Time
	n    int       // in the order they were sent
	to   uuid.UUID // zero: every run that may wait for this signal
	told flow.Told
	ask  uuid.UUID // the approval it answers; zero: none
}

// errTooLong ends a case that comes to no end within its limits.
var errTooLong = errors.New("the case comes to no end")

func newStage(ctx context.Context, c *Case, s *script) *stage {
	return &stage{
		c: c, ctx: ctx, script: s, began: time.Now(), byRun: map[uuid.UUID]*actor{}, marks: map[string]*mark{}, crashed: map[string]bool{}, wake: make(chan struct{}, 1),
	}
}

// now is the time of the case.
func (s *stage) now() time.Time {
	return s.c.at.Add(time.Since(s.began)).UTC().Truncate(time.Microsecond)
}

// play runs the case to its end, or until outer is done. The error is a *fault.Error that refuses its input, or says that
// it comes to no end.
func (s *stage) play(outer context.Context, first flow.Submission) error {
	if s.boot(); s.err != nil {
		return s.err
	}
	if err := s.open(first, ""); err != nil {
		return err
	}
	defer s.clear()
	s.send(first.ID)
	s.mayCrash(nil)
	for s.err == nil && outer.Err() == nil {
		s.perform()
		settle()
		if s.takeArrived() {
			continue
		}
		if s.over() {
			break
		}
		if s.stuck = s.waitsInVain(); len(s.stuck) > 0 {
			break
		}
		s.await()
	}
	return cmp.Or(s.err, outer.Err())
}

// boot brings up a node.
func (s *stage) boot() {
	var err error
	if s.work, err = s.node(); err != nil {
		s.fail(err)
	}
}

// open begins a run. The error is a *fault.Error that refuses its input.
func (s *stage) open(sub flow.Submission, prefix string) error {
	if len(s.actors) >= runsMax {
		s.fail(fmt.Errorf("%w: it starts more than %d runs", errTooLong, runsMax))
		return nil
	}
	run, events, err := flow.Open(sub, s.now())
	if err != nil {
		return err
	}
	a := &actor{run: run, prefix: prefix, hands: map[int32]context.CancelFunc{}}
	s.actors = append(s.actors, a)
	s.byRun[sub.ID] = a
	s.commit(a, events)
	return nil
}

// decide asks the rules, and makes durable what they say. Then the node may die.
func (s *stage) decide(a *actor, c flow.Cause) {
	if s.err != nil {
		return
	}
	events := a.run.Decide(c, s.now())
	if err := a.run.Err(); err != nil {
		s.fail(fmt.Errorf("the rules broke down over %s: %w", a.name(), err))
		return
	}
	s.commit(a, events)
	if _, claimed := c.(flow.Claimed); !claimed {
		s.mayCrash(events)
	}
}

// fail ends the case: the first reason counts.
func (s *stage) fail(err error) { s.err = cmp.Or(s.err, err) }

// commit keeps the events and what goes with them.
func (s *stage) commit(a *actor, events []flow.Event) {
	a.run.TakeCharges()
	a.log = append(a.log, events...)
	for _, e := range events {
		s.events++
		s.mark(a, e)
		s.story = append(s.story, s.line(a, e))
	}
	if s.events > s.eventsMax() {
		s.fail(fmt.Errorf("%w: more than %d events; limits.events raises that", errTooLong, s.eventsMax()))
		return
	}
	s.carryOut(a)
	if s.watch != nil {
		s.watch(a)
	}
}

func (s *stage) eventsMax() int { return cmp.Or(s.c.Limits.Events, eventsMaxDefault) }

func (s *stage) timeMax() time.Duration {
	return cmp.Or(time.Duration(s.c.Limits.Time), timeMaxDefault)
}

func (a *actor) name() string {
	if a.prefix == "" {
		return "the run"
	}
	return "the run of " + a.prefix[:len(a.prefix)-1]
}

// perform does what the runs order: attempts that should be at work and are not begin, those that are and should not be
// are stopped.
func (s *stage) perform() {
	for i := 0; i < len(s.actors) && s.err == nil; i++ {
		a := s.actors[i]
		s.stopUnwanted(a)
		for start := range a.run.Pending {
			if a.hands[start.Seq] != nil {
				continue
			}
			if a.run.Cutting() {
				s.decide(a, flow.Reported{Report: unbegun(a.run.Attempt(start), start)})
				i-- // what is pending now is another question
				break
			}
			s.start(a, start)
		}
	}
}

func (s *stage) stopUnwanted(a *actor) {
	wanted := map[int32]bool{}
	for start := range a.run.Pending {
		wanted[start.Seq] = !a.run.Cutting()
	}
	for seq, cancel := range a.hands {
		if !wanted[seq] {
			cancel()
		}
	}
}

func unbegun(a flow.Attempt, start flow.Start) flow.Report {
	return flow.Report{Path: a.Path, Gen: a.Gen, No: a.No, Start: start.Seq, Outcome: &flow.Outcome{
		Unbegun: true, Failure: &flow.Failure{Class: "cancelled", Message: "cancelled before it began"},
	}}
}

// start puts an attempt to work, and waits until it waits or is done: what begins at one time does so in order, and it is
// always the same attempt that uses up a line of the script.
func (s *stage) start(a *actor, start flow.Start) {
	attempt := a.run.Attempt(start)
	attempt.Deadline = time.Now().Add(attempt.Deadline.Sub(s.now())) // workers go by the clock of the bubble
	ctx, cancel := context.WithCancel(withSpeaker(s.ctx, speaker{path: a.prefix + attempt.Path, attempt: attempt}))
	a.hands[start.Seq] = cancel
	epoch := s.epoch
	go s.work.Do(ctx, attempt, func(r flow.Report) {
		r.Start = start.Seq
		s.mu.Lock()
		s.arrived = append(s.arrived, arrival{to: a, epoch: epoch, report: r})
		s.mu.Unlock()
		select {
		case s.wake <- struct{}{}:
		default:
		}
	})
	settle()
}

// takeArrived takes up what was reported, in an order that does not hang on which goroutine was faster. False: nothing was.
func (s *stage) takeArrived() bool {
	s.mu.Lock()
	list := s.arrived
	s.arrived = nil
	s.mu.Unlock()
	slices.SortStableFunc(list, func(a, b arrival) int {
		return cmp.Or(slices.Index(s.actors, a.to)-slices.Index(s.actors, b.to), int(a.report.Start-b.report.Start))
	})
	for _, r := range list {
		if r.epoch != s.epoch { // the node it was reported to has died
			continue
		}
		if r.report.Outcome != nil {
			r.to.hands[r.report.Start]()
			delete(r.to.hands, r.report.Start)
		}
		s.decide(r.to, flow.Reported{Report: r.report})
	}
	return len(list) > 0
}

// over reports whether nothing more will happen.
func (s *stage) over() bool {
	for _, a := range s.actors {
		if !a.run.Status().Ended() {
			return false
		}
	}
	return !slices.ContainsFunc(s.letters, func(l letter) bool { return l.told.Kind == flow.ToldResume })
}

// await lets time pass until something is due or reported, and applies what is due.
func (s *stage) await() {
	next := s.next()
	if next.Sub(s.c.at) > s.timeMax() {
		s.fail(fmt.Errorf("%w within %s; limits.time raises that", errTooLong, s.timeMax()))
		return
	}
	if wait := next.Sub(s.now()); wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-s.wake:
			return
		case <-t.C:
		}
	}
	if settle(); !s.takeArrived() { // what was done by then comes first
		s.fire()
	}
}

// next is when something is due.
func (s *stage) next() time.Time {
	var times []time.Time
	for _, a := range s.actors {
		if !a.run.Status().Ended() {
			times = append(times, a.run.Due())
		}
	}
	if len(s.letters) > 0 {
		times = append(times, s.letters[0].at)
	}
	return slices.MinFunc(times, time.Time.Compare)
}

// fire delivers the letters whose time has come, and tells the runs of the times they named.
func (s *stage) fire() {
	now := s.now()
	for len(s.letters) > 0 && !s.letters[0].at.After(now) && s.err == nil {
		l := s.letters[0]
		s.letters = s.letters[1:]
		s.deliver(l)
	}
	for i := 0; i < len(s.actors) && s.err == nil; i++ {
		a := s.actors[i]
		due := a.run.Due()
		if a.run.Status().Ended() || due.After(now) {
			continue
		}
		seq := a.run.Seq()
		if s.decide(a, flow.Fired{}); a.run.Seq() == seq && a.run.Due().Equal(due) && !a.run.Status().Ended() {
			s.fail(fmt.Errorf("%s names a time that has come, and nothing happens then", a.name()))
		}
	}
}

// mayCrash lets the node die where the case says so: what is in memory is lost, and every run is taken up again from its log.
func (s *stage) mayCrash(events []flow.Event) {
	dies := s.c.Crash.Every
	for _, e := range events {
		dies = dies || s.diesAfter(e)
	}
	if !dies || s.err != nil {
		return
	}
	s.epoch++
	for _, a := range s.actors {
		for _, cancel := range a.hands {
			cancel()
		}
		clear(a.hands)
	}
	settle()
	s.boot()
	for _, a := range s.actors {
		if a.run.Status().Ended() {
			continue
		}
		run, err := flow.Fold(a.run.ID, a.run.Tenant, a.run.Workflow(), a.log)
		if err != nil {
			s.fail(fmt.Errorf("the log of %s cannot be read: %w", a.name(), err))
			return
		}
		a.run = run
		s.decide(a, flow.Claimed{})
	}
}

// mark is where in the story a step stands: the numbers of its first event, and of the one that settled it.
type mark struct{ first, last int }

func (s *stage) mark(a *actor, e flow.Event) {
	if e.Step == "" {
		return
	}
	m := s.marks[a.prefix+e.Step]
	if m == nil {
		m = &mark{first: s.events}
		s.marks[a.prefix+e.Step] = m
	}
	if settles(e.Kind) {
		m.last = s.events
	}
}

func settles(k flow.Kind) bool {
	return k == flow.KindStepSucceeded || k == flow.KindStepFailed || k == flow.KindStepSkipped || k == flow.KindStepCancelled
}

// diesAfter reports whether an event settles a step after which the node dies. It does so once for each.
func (s *stage) diesAfter(e flow.Event) bool {
	if !settles(e.Kind) || s.crashed[e.Step] || !slices.ContainsFunc(s.c.Crash.After, func(glob string) bool { return matches(glob, e.Step) }) {
		return false
	}
	s.crashed[e.Step] = true
	return true
}

// clear ends what is still at work, and waits for it.
func (s *stage) clear() {
	for _, a := range s.actors {
		for _, cancel := range a.hands {
			cancel()
		}
	}
	settle()
}

// runID names a run of a case: the same for the same case.
func runID(at time.Time, name string) uuid.UUID {
	sum := sha256.Sum256([]byte(name))
	id := uuid.UUID(sum[:16])
	binary.BigEndian.PutUint64(id[:], uint64(at.UnixMilli())<<16|uint64(sum[6])<<8|uint64(sum[7])) //nolint:gosec // after 1970
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return id
}
