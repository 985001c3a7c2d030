// Command asker asks PID 1 again and again, as systemctl does: on its private socket, with a
// connection of its own. So neither the message bus nor what earlier questions left counts. For
// each question it prints how many milliseconds the answer took, and how late the question was: the
// machine is that busy. It ends with its standard input.
//
// It runs in the containers of test/chaos alone: PID 1 answers on that socket only whom it sees as
// a process of its own.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/godbus/dbus/v5"
)

// every is the time between two questions.
const every = 200 * time.Millisecond

func main() {
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		due := time.Now().Add(every)
		time.Sleep(every)
		began := time.Now()
		for ask() != nil { // PID 1 hangs up as it executes itself again
			time.Sleep(10 * time.Millisecond)
		}
		fmt.Println(time.Since(began).Milliseconds(), began.Sub(due).Milliseconds())
	}
}

func ask() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := dbus.Dial("unix:path=/run/systemd/private", dbus.WithContext(ctx))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal("0")}); err != nil {
		return err
	}
	return conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1").
		CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, "org.freedesktop.systemd1.Manager", "Version").Err
}
