package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/pimrelay/pimrelay/relay/akeneo/simulator"
)

// demoResult is what the demo shows at its end.
type demoResult struct {
	report     simulator.SubscriptionReport
	types      int
	duplicates int // since the relay started
	inSink     int
	inFile     int
	lost       int
	damaged    int // arrived with other bytes than were sent
	file       string
}

// result compares what the platform saw acknowledged with what arrived, byte
// for byte.
func (d *demo) result() (*demoResult, error) {
	r := &demoResult{report: d.platform.report(), file: d.relay.eventFile}
	inFile, err := readLines(d.relay.eventFile)
	if err != nil {
		return nil, err
	}
	inSink := d.sink.bodies()
	types := make(map[string]bool)
	for _, sent := range d.platform.simulator.Acknowledged() {
		types[sent.Type] = true
		sunk, ok := inSink[sent.ID]
		filed := inFile[string(sent.Body)]
		switch {
		case ok && !bytes.Equal(sunk, sent.Body):
			r.damaged++
		case ok:
			r.inSink++
		}
		if filed {
			r.inFile++
		}
		if !ok || !filed {
			r.lost++
		}
	}
	r.types = len(types)
	r.duplicates = int(d.relay.daemon.Status().Journal.Duplicates)
	return r, nil
}

// readLines is the set of the lines of a file.
func readLines(path string) (map[string]bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := make(map[string]bool)
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		lines[scanner.Text()] = true
	}
	return lines, scanner.Err()
}

func (r *demoResult) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name string, value any, note string) { fmt.Fprintf(w, "%s\t%v\t%s\n", name, value, note) }
	fmt.Fprintln(w)
	row("sent", r.report.Sent, fmt.Sprintf("by the platform, of %d types", r.types))
	row("accepted", r.report.Acknowledged, "answered 200, after the event was on disk")
	row("duplicates", r.duplicates, "delivered again and dropped")
	row("delivered to sink", r.inSink, "over HTTP, the platform's signature verified again by the sink")
	row("delivered to archive", r.inFile, "as lines of the file")
	row("altered on the way", r.damaged, "")
	row("lost", strconv.Itoa(r.lost), "")
	row("200 p50 / p99", r.report.P50.Round(10*time.Microsecond).String()+" / "+r.report.P99.Round(10*time.Microsecond).String(), "as the platform measured it")
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nthe file is %s\n", r.file)
	return err
}

// err is what makes the demo fail.
func (r *demoResult) err() error {
	if r.lost > 0 || r.damaged > 0 || r.report.Sent == 0 || r.report.Acknowledged != r.report.Sent {
		return fmt.Errorf("of %d events sent, %d were accepted, %d lost, %d altered", r.report.Sent, r.report.Acknowledged, r.lost, r.damaged)
	}
	return nil
}
