package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
)

// serveArg makes the bench program the Go program, an instance that serves on descriptor 3.
const serveArg = "serve-on-descriptor-3"

// oneThread in its environment makes an instance one thread's worth, as most programs' are.
const oneThread = "GOMAXPROCS=1"

func startGoDirect(ctx context.Context) (*target, error) {
	t := &target{name: "one instance, direct"}
	_, err := t.group(ctx, 1, t.goInstance)
	return t, err
}

// startGoDirectAgain is the same once more.
func startGoDirectAgain(ctx context.Context) (*target, error) {
	t, err := startGoDirect(ctx)
	t.name += ", again"
	return t, err
}

func startGoSteer(ctx context.Context) (*target, error) {
	t := &target{name: "unitgen, steer"}
	fds, err := t.group(ctx, instances, t.goInstance)
	if err != nil {
		return t, err
	}
	return t, t.steer(fds)
}

// goInstance starts this program as an instance on a listener, which it borrows.
func (t *target) goInstance(ctx context.Context, listener int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, self, serveArg)
	c.Env = append(os.Environ(), oneThread)
	return t.withListener(listener, c)
}

// pidAnswer is what every instance answers, and its process's number.
const pidAnswer = "pid="

// serve answers every request with the number of the process. It is as little of a web server as
// the load needs, so that what is measured is what stands before it.
func serve(listen func() (net.Listener, error)) error {
	ln, err := listen()
	if err != nil {
		return err
	}
	body := fmt.Sprintf(pidAnswer+"%d\n", os.Getpid())
	answer := []byte(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		go answerAll(conn, answer)
	}
}

// answerAll answers the requests of one connection, which it closes.
func answerAll(conn net.Conn, answer []byte) {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 1024)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if strings.TrimRight(line, "\r\n") != "" {
			continue // a header; the empty line ends the request
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}
