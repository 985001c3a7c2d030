module github.com/unitgen/unitgen

go 1.26.0

require (
	github.com/cilium/ebpf v0.22.0 // indirect
	github.com/godbus/dbus/v5 v5.2.4 // indirect
	github.com/rogpeppe/go-internal v1.16.0 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
