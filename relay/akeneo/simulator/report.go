package simulator

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what the simulator did and saw since it was made.
type Report struct {
	// Time is the platform's.
	Time time.Time `json:"time"`
	// Fired is the number of events that occurred, whoever wanted them.
	Fired int `json:"fired"`
	// Subscriptions come in the order of their creation, with deleted ones.
	Subscriptions []SubscriptionReport `json:"subscriptions"`
}

// SubscriptionReport is a subscription's part. Events are counted once however
// often they were sent, and Fired = Acknowledged + Dropped + Lost + Waiting.
type SubscriptionReport struct {
	ID           string `json:"id"`
	SubscriberID string `json:"subscriber_id"`
	URL          string `json:"url"`
	Status       string `json:"status"`
	// Reason says why it is suspended.
	Reason string `json:"reason,omitempty"`

	// Fired is the number of events meant for it.
	Fired int `json:"fired"`
	// Sent is how many of them were sent at least once.
	Sent int `json:"sent"`
	// Attempts is the number of requests.
	Attempts int `json:"attempts"`
	// Acknowledged is the number of events the destination accepted.
	Acknowledged int `json:"acknowledged"`
	// Retried is the number of events sent more than once.
	Retried int `json:"retried"`
	// Dropped is the number of events given up after their last attempt.
	Dropped int `json:"dropped"`
	// Lost is the number of events that a suspension or deletion took from
	// the queue or from their retries.
	Lost int `json:"lost"`
	// Waiting is the number of events queued, under way or before a retry.
	Waiting int `json:"waiting"`
	// Missed is the number of events of its types that were never meant for
	// it, because it was suspended or not yet in effect.
	Missed int `json:"missed"`

	// Answers counts attempts by status, or by the platform's error_reason
	// where there was none.
	Answers map[string]int `json:"answers"`
	// P50 and P99 are the median and 99th percentile of the time from the
	// request to the end of the answer, exact to 5 %; time-outs included.
	P50 time.Duration `json:"latency_p50_ns"`
	P99 time.Duration `json:"latency_p99_ns"`
}

// Sent is an event as a destination got it.
type Sent struct {
	Subscription, ID, Type string
	// Body is exactly what was sent; it must not be changed.
	Body []byte
}

// Report gives the state of the moment.
func (s *Simulator) Report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report()
}

// report is Report for a caller that holds mu.
func (s *Simulator) report() Report {
	r := Report{Time: s.clock.now(), Fired: s.fired, Subscriptions: make([]SubscriptionReport, 0, len(s.subscriptions))}
	for _, sub := range s.subscriptions {
		t := &sub.outbox.tally
		r.Subscriptions = append(r.Subscriptions, SubscriptionReport{
			ID: sub.id, SubscriberID: sub.subscriber.id, URL: sub.declared.url, Status: sub.status, Reason: sub.reason,
			Fired: t.fired, Sent: t.sent, Attempts: t.attempts, Acknowledged: t.acknowledged, Retried: t.retried,
			Dropped: t.dropped, Lost: t.lost, Waiting: sub.outbox.waiting(), Missed: t.missed,
			Answers: maps.Clone(t.answers), P50: t.took.quantile(0.5), P99: t.took.quantile(0.99),
		})
	}
	return r
}

// Acknowledged lists the acknowledged events of all subscriptions, in the order
// of their acknowledgement. It is empty without Options.KeepBodies.
func (s *Simulator) Acknowledged() []Sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.acked)
}

// WriteTable writes the report as text for a person, in one Write.
func (r Report) WriteTable(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d events fired, %d subscriptions\n", r.Fired, len(r.Subscriptions))
	if len(r.Subscriptions) > 0 {
		table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "SUBSCRIPTION\tSTATUS\tFIRED\tSENT\tATTEMPTS\tACKED\tRETRIED\tDROPPED\tLOST\tWAITING\tMISSED\tP50\tP99\tANSWERS")
		for _, s := range r.Subscriptions {
			fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%v\t%v\t%s\n", s.ID, s.Status,
				s.Fired, s.Sent, s.Attempts, s.Acknowledged, s.Retried, s.Dropped, s.Lost, s.Waiting, s.Missed,
				s.P50, s.P99, s.answersText())
		}
		table.Flush() // a bytes.Buffer takes everything
	}
	for _, s := range r.Subscriptions {
		if s.Reason != "" {
			fmt.Fprintf(&b, "%s is suspended: %s\n", s.ID, s.Reason)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// answersText is Answers on one line, like "200×12 429×3".
func (s SubscriptionReport) answersText() string {
	var parts []string
	for _, label := range slices.Sorted(maps.Keys(s.Answers)) {
		parts = append(parts, fmt.Sprintf("%s×%d", label, s.Answers[label]))
	}
	return strings.Join(parts, " ")
}

// tally counts for the report.
type tally struct {
	fired, sent, attempts, acknowledged, retried, dropped, lost, missed int

	answers map[string]int
	took    histogram
}

// attempted counts an attempt that begins.
func (t *tally) attempted(it *item) {
	t.attempts++
	switch it.attempts {
	case 1:
		t.sent++
	case 2:
		t.retried++
	}
}

// answered counts an attempt that ended.
func (t *tally) answered(a answer) {
	t.answers[a.label()]++
	t.took.add(a.took)
}

// histogram counts durations in buckets that grow by 5 %, from 1 µs to 10 s.
type histogram struct {
	buckets [332]int
	all     int
}

// bucketGrowth is the upper bound of a bucket over that of the one before.
const bucketGrowth = 1.05

func (h *histogram) add(d time.Duration) {
	i := 0
	if us := float64(d) / float64(time.Microsecond); us > 1 {
		i = int(math.Ceil(math.Log(us) / math.Log(bucketGrowth)))
	}
	h.buckets[min(i, len(h.buckets)-1)]++
	h.all++
}

// quantile is the upper bound of the bucket that holds the quantile q, rounded
// to microseconds; 0 when there is nothing.
func (h *histogram) quantile(q float64) time.Duration {
	rank := int(math.Ceil(q * float64(h.all)))
	for i, n := range h.buckets {
		if rank -= n; rank <= 0 && h.all > 0 {
			us := math.Pow(bucketGrowth, float64(i))
			return time.Duration(math.Round(us)) * time.Microsecond
		}
	}
	return 0
}
