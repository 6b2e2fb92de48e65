package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// others tells which part of the machine other programs have had. Its times are of all processors since they started, in ticks.
type others struct{ busy, total, ours int64 }

// readOthers reads the times of now; ours is the time of this program and all that it has started.
func (p *pair) readOthers() (others, error) {
	var o others
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return o, err
	}
	if o.busy, o.total, err = parseBusy(string(stat)); err != nil {
		return o, err
	}
	pids := []int{os.Getpid()}
	for _, running := range p.running {
		pids = append(pids, running.command.Process.Pid)
	}
	for _, pid := range pids {
		used, err := cpu(pid)
		if err != nil {
			return o, err
		}
		o.ours += int64(used / tick)
	}
	return o, nil
}

// since returns their part since an earlier reading, from 0 to 1.
func (o others) since(earlier others) float64 {
	theirs := o.busy - earlier.busy - (o.ours - earlier.ours)
	return float64(max(0, theirs)) / float64(max(1, o.total-earlier.total))
}

// parseBusy reads the first line of proc(5)'s stat: cpu user nice system idle iowait irq softirq steal ….
func parseBusy(stat string) (busy, total int64, err error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, 0, fmt.Errorf("%q is no time of processors", line)
	}
	for i, field := range fields[1:9] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		total += ticks
		if isIdle := i == 3 || i == 4; !isIdle {
			busy += ticks
		}
	}
	return busy, total, nil
}

// tick is the kernel's unit of processor time.
const tick = 10 * time.Millisecond

// cpu returns the processor time that a process has used.
func cpu(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseCPU(string(stat))
}

// parseCPU reads utime and stime, the fields 14 and 15 of proc(5)'s stat. The second field, a name in parentheses, may hold anything.
func parseCPU(stat string) (time.Duration, error) {
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("%q is no stat of a process", stat)
	}
	user, userErr := strconv.ParseInt(fields[11], 10, 64)
	system, systemErr := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(userErr, systemErr)
}
