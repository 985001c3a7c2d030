package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// instances grows one app.
func (s *scale) instances(numbers []int) error {
	if len(numbers) == 0 {
		return nil
	}
	header("Instances of one app; CPU in ms for each instance", "instances", "create and start", "CPU", "status", "list", "reload", "CPU", "memory of the balancer")
	for _, n := range numbers {
		app, port := s.newApp()
		began := time.Now()
		_, _, err := s.spend(app, "true")
		if err != nil {
			return err
		}
		before, err := s.usage(app)
		if err != nil {
			return err
		}
		if _, err := s.output(create(app, port, n)...); err != nil {
			return err
		}
		if err := s.awaitUp(app, n); err != nil {
			return err
		}
		created := time.Since(began)
		started, err := s.usage(app)
		if err != nil {
			return err
		}
		for name := range started {
			started[name] -= before[name]
		}
		status, err := s.timed("unitgen", "status", app)
		if err != nil {
			return err
		}
		list, err := s.timed("unitgen", "list")
		if err != nil {
			return err
		}
		reload, reloaded, err := s.spend(app, "systemctl", "reload", app)
		if err != nil {
			return err
		}
		memory, err := s.memory(app)
		if err != nil {
			return err
		}
		row(strconv.Itoa(n), seconds(created), perInstance(started, n), seconds(status), seconds(list), seconds(reload),
			perInstance(reloaded, n), fmt.Sprintf("%.1f MB", memory))
		if err := s.remove(app); err != nil {
			return err
		}
	}
	return nil
}

// apps grows the number of apps of four instances.
func (s *scale) apps(numbers []int) error {
	if len(numbers) == 0 {
		return nil
	}
	header("Apps of four instances", "apps", "create and start the last", "list", "status of the last", "reload of the last", "daemon-reload")
	var apps []string
	for _, n := range numbers {
		var took time.Duration
		for len(apps) < n {
			app, port := s.newApp()
			var err error
			if took, err = s.timed(create(app, port, 4)...); err != nil {
				return err
			}
			apps = append(apps, app)
		}
		last := apps[len(apps)-1]
		cells := []string{strconv.Itoa(n), seconds(took)}
		for _, argv := range [][]string{{"unitgen", "list"}, {"unitgen", "status", last}, {"systemctl", "reload", last}, {"systemctl", "daemon-reload"}} {
			took, err := s.timed(argv...)
			if err != nil {
				return err
			}
			cells = append(cells, seconds(took))
		}
		row(cells...)
	}
	for _, app := range apps {
		if err := s.remove(app); err != nil {
			return err
		}
	}
	return nil
}

// connections grows the number of open connections; the load holds them from inside the container.
func (s *scale) connections(numbers []int) error {
	if len(numbers) == 0 {
		return nil
	}
	header("Open connections of an app of four instances", "connections", "memory of the balancer", "status", "reload while they are idle", "CPU of the balancer in it")
	app, port := s.newApp()
	if _, err := s.output(create(app, port, 4)...); err != nil {
		return err
	}
	for _, n := range numbers {
		if err := s.hold(app, port, n); err != nil {
			return err
		}
	}
	return s.remove(app)
}

// each is how many connections one client process holds: the limit of descriptors of many machines
// is 20,000, which a container cannot raise. An instance has that limit too.
const each = 15000

// hold opens n connections and measures while they are open.
func (s *scale) hold(app, port string, n int) error {
	opened := 0
	for opened < n {
		more := min(each, n-opened)
		ok, release, err := s.idle(port, more)
		if err != nil {
			return fmt.Errorf("open connections: %w", err)
		}
		defer release()
		if opened += ok; ok < more {
			row(strconv.Itoa(n), fmt.Sprintf("this machine opens %d", opened), "", "", "")
			return nil
		}
	}
	memory, err := s.memory(app)
	if err != nil {
		return err
	}
	status, err := s.timed("unitgen", "status", app)
	if err != nil {
		return err
	}
	reload, used, err := s.spend(app, "systemctl", "reload", app)
	if err != nil {
		return err
	}
	row(strconv.Itoa(n), fmt.Sprintf("%.1f MB", memory), seconds(status), seconds(reload), seconds(used["balancer"]))
	return nil
}

// idle opens n connections, which stay open until release is called.
func (s *scale) idle(port string, n int) (opened int, release func(), err error) {
	c, err := s.c.Command(s.ctx, "sh", "-c", `ulimit -n "$(ulimit -Hn)"; exec client idle 127.0.0.1 "$@"`, "sh", port, strconv.Itoa(n), "120000")
	if err != nil {
		return 0, nil, err
	}
	in, err := c.StdinPipe()
	if err != nil {
		return 0, nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	if err := c.Start(); err != nil {
		return 0, nil, err
	}
	release = func() { in.Close(); c.Wait() }
	var said struct{ OK int }
	if err := json.NewDecoder(out).Decode(&said); err != nil {
		release()
		return 0, nil, err
	}
	return said.OK, release, nil
}

// reloads shows whether anything grows with the number of reloads.
func (s *scale) reloads(n int) error {
	if n == 0 {
		return nil
	}
	header("Reloads of an app of two instances", "after", "memory of the balancer", "descriptors of the balancer", "descriptors that PID 1 keeps for it", "time of a reload")
	app, port := s.newApp()
	if _, err := s.output(create(app, port, 2)...); err != nil {
		return err
	}
	var took time.Duration
	for i := range n + 1 {
		if i == 0 || i == 1 || i == n/2 || i == n {
			memory, err := s.memory(app)
			if err != nil {
				return err
			}
			pid, err := s.c.Show(s.ctx, app+".service", "MainPID")
			if err != nil {
				return err
			}
			fds, err := s.output("ls", "/proc/"+pid+"/fd")
			if err != nil {
				return err
			}
			stored, err := s.c.Show(s.ctx, app+".service", "NFileDescriptorStore")
			if err != nil {
				return err
			}
			row(strconv.Itoa(i), fmt.Sprintf("%.1f MB", memory), strconv.Itoa(strings.Count(fds, "\n")), stored, seconds(took))
		}
		if i < n {
			var err error
			if took, err = s.timed("systemctl", "reload", app); err != nil {
				return err
			}
		}
	}
	return s.remove(app)
}
