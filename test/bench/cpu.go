package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// spent is CPU time.
type spent struct{ Balancer, Instances, Client time.Duration }

func (s spent) all() time.Duration { return s.Balancer + s.Instances + s.Client }

func (t *target) cpu() (s spent, err error) {
	if s.Balancer, err = cpuOf(t.balancer); err == nil {
		s.Instances, err = cpuOf(t.instances)
	}
	return s, err
}

// cpuOf is the time that processes have spent on a processor: the first figure of schedstat, in ns,
// of every thread (Documentation/scheduler/sched-stats.rst).
func cpuOf(pids []int) (time.Duration, error) {
	var all time.Duration
	for _, pid := range pids {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil || len(files) == 0 {
			return 0, fmt.Errorf("read CPU time of process %d: %w", pid, errors.Join(err, os.ErrNotExist))
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				continue // a thread that has ended; what it used is lost to all targets alike
			}
			ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("parse %s: %w", file, err)
			}
			all += time.Duration(ns)
		}
	}
	return all, nil
}

func cores() float64 { return float64(runtime.NumCPU()) }

// tick is the unit of /proc/stat: USER_HZ is 100 on every Linux (proc(5)).
const tick = 10 * time.Millisecond

// machineCPU is what all programs have used of all processors, and what the hypervisor took
// (steal). Interrupts are left out: the kernel does a target's network traffic in them, and may
// count it for nobody.
func machineCPU() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	fields := strings.Fields(string(line)) // cpu user nice system idle iowait irq softirq steal …
	if len(fields) < 9 {
		return 0, fmt.Errorf("parse /proc/stat: %q", line)
	}
	var all time.Duration
	for _, i := range []int{1, 2, 3, 8} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse /proc/stat: %w", err)
		}
		all += time.Duration(n) * tick
	}
	return all, nil
}

// memoryOf is the memory that goes with processes: their proportional share of what they have
// mapped (proc(5), smaps_rollup).
func memoryOf(pids []int) (float64, error) {
	var all float64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				if err != nil {
					return 0, fmt.Errorf("parse smaps_rollup of process %d: %w", pid, err)
				}
				all += kb * 1024
			}
		}
	}
	return all, nil
}
