package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// sourceDir is where the C programs are.
func sourceDir() (string, error) {
	root, err := rig.RepoRoot()
	return filepath.Join(root, "test/bench/load"), err
}

// write writes bench.md, bench.json and bench.svg into dir.
func write(dir string, results []result, elapsed time.Duration) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(results, "", "\t")
	if err != nil {
		return err
	}
	text := markdown(results, elapsed)
	for name, content := range map[string]string{"bench.md": text, "bench.json": string(data) + "\n", "bench.svg": plot(results)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	fmt.Print(text)
	fmt.Printf("\nwritten: %s\n", filepath.Join(dir, "bench.{md,json,svg}"))
	return nil
}

// markdown is the report that a person reads.
func markdown(results []result, elapsed time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Medians of interleaved rounds on %d cores, in %s; in brackets the lowest and the highest ratio to the first line within a round.\n",
		runtime.NumCPU(), elapsed.Round(time.Second))
	for _, r := range results {
		if len(r.Targets) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n### %s\n\n", r.Title)
		r.throughput(&b)
		r.processors(&b)
		r.latency(&b)
		if failed := r.failed(); failed > 0 {
			fmt.Fprintf(&b, "\n%d requests failed.\n", failed)
		}
		if r.Dropped > 0 {
			fmt.Fprintf(&b, "\n%d turns were measured again, as other programs took more than %.0f %% of the processors.\n", r.Dropped, foreignLimit*100)
		}
	}
	return b.String()
}

func row(b *strings.Builder, cells ...string) { fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | ")) }

// header prints the head of a table.
func header(b *strings.Builder, cells ...string) {
	row(b, cells...)
	row(b, slices.Repeat([]string{"---"}, len(cells))...)
}

func (r result) throughput(b *strings.Builder) {
	_, bulk := r.Series["bulk"]
	cells := []string{"", "connections/s", "ratio", "requests/s, 64 kept", "ratio", "1,000 kept", "ratio"}
	if bulk {
		cells = append(cells, "GB/s", "ratio")
	}
	header(b, append(cells, "spread")...)
	for _, t := range r.Targets {
		cells := []string{t}
		for _, m := range []string{"connections", "requests64", "requests1000"} {
			cells = append(cells, fmt.Sprintf("%.0f", r.median(m, t, perSecond)), r.ratio(m, t))
		}
		if bulk {
			cells = append(cells, fmt.Sprintf("%.2f", r.median("bulk", t, perSecond)/1e9), r.ratio("bulk", t))
		}
		spread := r.median("connections", t, func(s sample) float64 { return float64(s.Spread[1]-s.Spread[0]) / float64(max(s.Spread[1], 1)) })
		row(b, append(cells, fmt.Sprintf("%.1f %%", 100*spread))...)
	}
}

// processors prints who needs how much CPU.
func (r result) processors(b *strings.Builder) {
	b.WriteString("\nCPU in µs, and memory:\n\n")
	cells := []string{"", "per connection: balancer", "instances", "clients", "per request: balancer", "instances", "clients", "idle connection, balancer"}
	header(b, cells...)
	for _, t := range r.Targets {
		cells := []string{t}
		for _, m := range []string{"connections", "requests64"} {
			for _, of := range []func(spent) time.Duration{
				func(s spent) time.Duration { return s.Balancer },
				func(s spent) time.Duration { return s.Instances },
				func(s spent) time.Duration { return s.Client }} {
				cells = append(cells, fmt.Sprintf("%.1f", r.median(m, t, func(s sample) float64 { return float64(of(s.CPU)) / 1e3 })))
			}
		}
		memory := "0"
		if n, ok := r.Idle[t]; ok {
			memory = fmt.Sprintf("%.0f B", n)
		} else if slices.Contains(r.Ended, t) {
			memory = "it has ended under the load"
		}
		row(b, append(cells, memory)...)
	}
}

// latency prints what requests take that come at a fixed rate.
func (r result) latency(b *strings.Builder) {
	b.WriteString("\nLatency in µs at a fixed rate, from when a request is due:\n\n")
	header(b, "", fmt.Sprintf("%d connections/s: p50", r.Rates["pacedConnections"]), "p99", "p99.9", fmt.Sprintf("%d requests/s: p50", r.Rates["pacedRequests"]), "p99", "p99.9", "CPU of the balancer per request")
	for _, t := range r.Targets {
		cells := []string{t}
		for _, m := range []string{"pacedConnections", "pacedRequests"} {
			for i := range 3 {
				cells = append(cells, fmt.Sprintf("%.0f", r.median(m, t, func(s sample) float64 { return float64(s.Latency[i]) / 1e3 })))
			}
		}
		row(b, append(cells, fmt.Sprintf("%.1f", r.median("pacedRequests", t, func(s sample) float64 { return float64(s.CPU.Balancer) / 1e3 })))...)
	}
}

func perSecond(s sample) float64 { return s.PerSecond }

func (r result) median(measure, target string, of func(sample) float64) float64 {
	var values []float64
	for _, s := range r.Series[measure][target] {
		values = append(values, of(s))
	}
	return median(values)
}

// ratios are those to the first target, round by round; none where that had answered nothing.
func (r result) ratios(measure, target string) (ratios []float64) {
	base := r.Series[measure][r.Targets[0]]
	for i, s := range r.Series[measure][target] {
		if base[i].PerSecond > 0 {
			ratios = append(ratios, s.PerSecond/base[i].PerSecond)
		}
	}
	return ratios
}

func (r result) ratio(measure, target string) string {
	ratios := r.ratios(measure, target)
	if len(ratios) == 0 {
		return "–" // the first target answered nothing in time
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", median(ratios), slices.Min(ratios), slices.Max(ratios))
}

func (r result) failed() (n int) {
	for _, targets := range r.Series {
		for _, all := range targets {
			for _, s := range all {
				n += s.Failed
			}
		}
	}
	return n
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
