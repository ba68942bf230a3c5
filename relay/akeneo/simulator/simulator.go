package simulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"
)

// maxFiring is the most events one Fire may ask for: each waiting event costs
// about 100 bytes a subscription.
const maxFiring = 1_000_000

// ErrStopped says that Run has ended and nothing will be delivered any more.
var ErrStopped = errors.New("the simulator has stopped")

// Simulator is a PIM and the Event Platform. All methods may be used by several
// goroutines at once.
type Simulator struct {
	opts   Options
	clock  clock
	routes http.Handler
	client *http.Client

	mu      sync.Mutex // guards everything below and all objects reachable from it
	stage   stage
	ready   []func(context.Context) // tasks that Run has not started yet
	poke    chan struct{}           // tells Run of them; holds one
	changed chan struct{}           // closed at the next change; nil when nobody waits

	tokens        tokens
	subscribers   []*subscriber   // by creation, deleted ones included
	subscriptions []*subscription // by creation, deleted ones included
	log           []logEntry      // oldest first

	fired  int    // events that occurred in the PIM
	firing int    // calls of Fire that have not fired all of theirs
	open   int    // events that wait for an acknowledgement, over all subscriptions
	turn   int    // next type when every type is fired in turn
	acked  []Sent // with Options.KeepBodies
}

// stage is the life of a Simulator.
type stage int

const (
	created stage = iota
	running
	stopped
)

// New makes a Simulator. It serves its routes at once and delivers while Run
// runs. The only errors are options that cannot work.
func New(opts Options) (*Simulator, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("simulator options: %w", err)
	}
	s := &Simulator{
		opts:   opts,
		clock:  clock{start: time.Now(), speed: opts.Speed},
		client: newClient(opts),
		poke:   make(chan struct{}, 1),
		tokens: tokens{access: map[string]time.Time{}, refresh: map[string]time.Time{}},
	}
	s.routes = s.newRoutes()
	return s, nil
}

// ServeHTTP serves the PIM's and the platform's routes and those that control
// the simulator.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.routes.ServeHTTP(w, r) }

// Run delivers events until ctx ends. Requests under way then are finished,
// which takes at most 5 s, and every goroutine has ended when Run returns. It
// returns nil, and an error only when it is called a second time.
func (s *Simulator) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.stage != created {
		s.mu.Unlock()
		return errors.New("a simulator runs once: make a new one")
	}
	s.stage = running
	if s.opts.Rate > 0 {
		s.start(func(ctx context.Context) { s.emit(ctx, nil, s.opts.Rate, math.MaxInt) })
	}
	s.mu.Unlock()

	var tasks sync.WaitGroup
	for ctx.Err() == nil {
		s.mu.Lock()
		ready := s.ready
		s.ready = nil
		s.mu.Unlock()
		for _, task := range ready {
			tasks.Go(func() { task(ctx) })
		}
		select {
		case <-s.poke:
		case <-ctx.Done():
		}
	}
	tasks.Wait()
	s.client.CloseIdleConnections()

	s.mu.Lock()
	defer s.mu.Unlock()
	s.stage = stopped
	s.notify()
	return nil
}

// start hands a task to Run. The caller holds mu.
func (s *Simulator) start(task func(context.Context)) {
	s.ready = append(s.ready, task)
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// Firing asks for events to occur in the PIM.
type Firing struct {
	// Type is one of the documented event types; empty fires every type in
	// turn, and goes on where the last such call ended.
	Type string `json:"type"`
	// Count is the number of events, at most 1,000,000; 0 is 1.
	Count int `json:"count"`
	// Rate spreads them over time, in events per second of the wall clock; 0
	// fires them all at once.
	Rate float64 `json:"rate"`
	// Data replaces the documented data of the type, if it is an object that
	// is not empty. It needs a Type.
	Data json.RawMessage `json:"data"`
}

// Fired says what a Firing led to.
type Fired struct {
	// Fired is the number of events; with a rate, of those to come.
	Fired int `json:"fired"`
	// Subscriptions is the number of subscriptions that receive at least one
	// of them if nothing changes.
	Subscriptions int `json:"subscriptions"`
}

// Fire makes events occur and returns without waiting for their delivery, nor,
// with a rate, for their occurrence; Idle waits for both. Every subscription in
// effect whose events name the type gets them.
func (s *Simulator) Fire(f Firing) (Fired, error) {
	source, err := f.template()
	if err != nil {
		return Fired{}, err
	}
	count := max(f.Count, 1)

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stage == stopped {
		return Fired{}, ErrStopped
	}
	if f.Rate > 0 {
		s.firing++
		s.start(func(ctx context.Context) {
			s.emit(ctx, source, f.Rate, count)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.firing--
			s.notify()
		})
		return Fired{count, s.listening(source)}, nil
	}
	listening := s.listening(source)
	now := s.clock.now()
	for range count {
		s.publish(source, now)
	}
	return Fired{count, listening}, nil
}

// template checks a Firing and gives its template, or nil for every type in
// turn.
func (f Firing) template() (*template, error) {
	ownData, err := hasMembers(f.Data)
	switch {
	case err != nil:
		return nil, err
	case f.Count < 0 || f.Count > maxFiring:
		return nil, fmt.Errorf("count must be between 1 and %d (got %d)", maxFiring, f.Count)
	case !(f.Rate >= 0) || math.IsInf(f.Rate, 0):
		return nil, fmt.Errorf("rate must be a number of events per second, 0 or above (got %v)", f.Rate)
	case f.Type == "" && ownData:
		return nil, errors.New("data needs a type: give both or neither")
	case f.Type == "":
		return nil, nil
	}
	t, ok := samples.byType[f.Type]
	if !ok {
		return nil, fmt.Errorf("unknown event type %q: give one of the %d documented ones, like com.akeneo.pim.v1.product.updated, or none for all of them in turn",
			f.Type, len(samples.types))
	}
	if !ownData {
		return t, nil
	}
	return t.with(f.Data)
}

// emit fires count events at a rate per second, until ctx ends.
func (s *Simulator) emit(ctx context.Context, source *template, rate float64, count int) {
	began := time.Now()
	for n := range count {
		due := time.Duration(float64(n) / rate * float64(time.Second))
		if !sleep(ctx, due-time.Since(began)) {
			return
		}
		s.mu.Lock()
		s.publish(source, s.clock.now())
		s.mu.Unlock()
	}
}

// publish makes one event occur. The caller holds mu.
func (s *Simulator) publish(source *template, now time.Time) {
	if source == nil {
		source = samples.byType[samples.types[s.turn%len(samples.types)]]
		s.turn++
	}
	e := &event{template: source, id: newID(now), time: now}
	s.fired++
	for _, sub := range s.subscriptions {
		s.offer(sub, e)
	}
	s.notify()
}

// listening counts the subscriptions that would get events now. The caller
// holds mu.
func (s *Simulator) listening(source *template) int {
	n, now := 0, s.clock.now()
	for _, sub := range s.subscriptions {
		set := sub.settingsAt(now)
		if set != nil && sub.status == statusActive && (source == nil || set.wants(source.eventType)) {
			n++
		}
	}
	return n
}

// notify wakes everybody in Wait. The caller holds mu.
func (s *Simulator) notify() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// Wait returns when cond holds for the report of the moment. It looks after
// every change, so nobody has to poll; the error is that of ctx, or ErrStopped
// when Run ends before cond holds.
func (s *Simulator) Wait(ctx context.Context, cond func(Report) bool) error {
	return s.wait(ctx, func() bool { return cond(s.report()) })
}

// Idle returns when everything fired so far has occurred and was acknowledged,
// dropped or lost. Events of Options.Rate count once they have occurred.
func (s *Simulator) Idle(ctx context.Context) error {
	return s.wait(ctx, func() bool { return s.firing == 0 && s.open == 0 })
}

// wait calls cond, with mu held, after every change.
func (s *Simulator) wait(ctx context.Context, cond func() bool) error {
	for {
		s.mu.Lock()
		done, ended := cond(), s.stage == stopped
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		switch {
		case done:
			return nil
		case ended:
			return ErrStopped
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
