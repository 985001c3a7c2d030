// Command stranger is what a local user without any right does to unitgen's apps, for as long as it
// is told to:
//
//	stranger forge DURATION APP…   signals on the system bus that claim to come from PID 1
//	stranger flood DURATION PATH…  connections and garbage at unix sockets
//
// It runs in the containers of test/chaos alone. Both have a rate, which is far above what any
// honest client does.
package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// pause lies between two rounds: 50 a second.
const pause = 20 * time.Millisecond

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "stranger: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("want a verb, a duration and a target, got %q", args)
	}
	limit, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	end := time.Now().Add(limit)
	switch args[0] {
	case "forge":
		return forge(end, args[2:])
	case "flood":
		return flood(end, args[2:])
	}
	return fmt.Errorf("no such verb %q", args[0])
}

// forge tells everybody on the bus that the instances of apps have failed, that their jobs are done
// and that units are gone, in unicast signals, which no match rule keeps away.
func forge(end time.Time, apps []string) error {
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		return err
	}
	defer conn.Close()
	sent := 0
	for round := 0; time.Now().Before(end); round++ {
		var names []string
		if err := conn.BusObject().Call("org.freedesktop.DBus.ListNames", 0).Store(&names); err != nil {
			return err
		}
		for _, name := range names {
			if !strings.HasPrefix(name, ":") || name == conn.Names()[0] {
				continue
			}
			for _, message := range lies(name, apps[round%len(apps)], round%4+1) {
				conn.Send(message, nil)
				sent++
			}
		}
		time.Sleep(pause)
	}
	fmt.Printf("%d signals sent\n", sent)
	return nil
}

// lies are what a shim could believe about instance i of app.
func lies(name, app string, i int) []*dbus.Message {
	unit := fmt.Sprintf("%s@%d.service", app, i)
	path := dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/unit/%s_40%d_2eservice", app, i))
	const manager, systemd = "/org/freedesktop/systemd1", "org.freedesktop.systemd1"
	return []*dbus.Message{
		signal(name, path, "org.freedesktop.DBus.Properties", "PropertiesChanged", systemd+".Unit",
			map[string]dbus.Variant{"ActiveState": dbus.MakeVariant("failed"), "SubState": dbus.MakeVariant("failed")}, []string{}),
		signal(name, path, "org.freedesktop.DBus.Properties", "PropertiesChanged", systemd+".Service",
			map[string]dbus.Variant{"MainPID": dbus.MakeVariant(uint32(1))}, []string{}),
		signal(name, manager, systemd+".Manager", "UnitRemoved", unit, path),
		signal(name, manager, systemd+".Manager", "JobRemoved", uint32(i), dbus.ObjectPath(fmt.Sprintf("%s/job/%d", manager, i)), unit, "failed"),
		signal(name, manager, systemd+".Manager", "Reloading", true),
		signal(name, "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", systemd, ":1.0", ""),
	}
}

func signal(to string, path dbus.ObjectPath, iface, member string, body ...any) *dbus.Message {
	return &dbus.Message{
		Type:  dbus.TypeSignal,
		Flags: dbus.FlagNoReplyExpected,
		Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldDestination: dbus.MakeVariant(to),
			dbus.FieldPath:        dbus.MakeVariant(path),
			dbus.FieldInterface:   dbus.MakeVariant(iface),
			dbus.FieldMember:      dbus.MakeVariant(member),
			dbus.FieldSignature:   dbus.MakeVariant(dbus.SignatureOf(body...)),
		},
		Body: body,
	}
}

// held is how many connections flood keeps open at a socket.
const held = 100

// flood connects to each path in turn, sends what is no message, and keeps the latest connections
// open.
func flood(end time.Time, paths []string) error {
	var open []net.Conn
	connected, refused := 0, 0
	for round := 0; time.Now().Before(end); round++ {
		conn, err := net.DialTimeout("unix", paths[round%len(paths)], time.Second)
		if err != nil {
			refused++
		} else {
			connected++
			_ = conn.SetWriteDeadline(time.Now().Add(pause))
			fmt.Fprintf(conn, "{%q:%q}\x00{\n%s\n", "method", "io.unitgen.Shim.Status", strings.Repeat("[", 1000))
			open = append(open, conn)
		}
		if len(open) > held {
			open[0].Close()
			open = open[1:]
		}
		time.Sleep(pause / 4)
	}
	for _, conn := range open {
		conn.Close()
	}
	fmt.Printf("%d connections made, %d refused\n", connected, refused)
	return nil
}
