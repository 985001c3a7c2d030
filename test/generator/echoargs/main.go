// Command echoargs tells what its process was started with: the bytes of its arguments, its
// environment and its working directory, as the kernel has them. The tests compare them with what
// was given to unitgen.
//
// With ECHO_ONCE in its environment it prints them and ends; else it answers every connection to
// its passed socket, descriptor 3, with them.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
)

// Process is what is printed, as JSON.
type Process struct {
	Cmdline []byte // /proc/PID/cmdline, proc(5): each argument with a NUL behind it
	Environ []byte // the same of KEY=VALUE
	Cwd     []byte
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "echoargs: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	text, err := describe()
	if err != nil {
		return err
	}
	if _, once := os.LookupEnv("ECHO_ONCE"); once {
		_, err := os.Stdout.Write(text)
		return err
	}
	l, err := net.FileListener(os.NewFile(3, "passed socket"))
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		conn.Write(text) // a client that has gone does not matter to the next one
		conn.Close()
	}
}

func describe() ([]byte, error) {
	var p Process
	var err error
	if p.Cmdline, err = os.ReadFile("/proc/self/cmdline"); err != nil {
		return nil, err
	}
	if p.Environ, err = os.ReadFile("/proc/self/environ"); err != nil {
		return nil, err
	}
	cwd, err := os.Readlink("/proc/self/cwd")
	if err != nil {
		return nil, err
	}
	p.Cwd = []byte(cwd)
	return json.Marshal(p)
}
