// Package metrics answers scrapes of Prometheus, in its text format or that of OpenMetrics, with
// what systemd, the balancers, the kernel's control groups and the tallies of rollouts say of apps.
//
// It is for a process of its own, which runs for scrapes alone: systemd starts it by its socket,
// and it ends when nobody has scraped for a while. Nothing is remembered from one scrape to the
// next, so nothing is lost with the process. The cost of a scrape is one listing of units, two
// properties of each instance, two small files of each, and one question to each balancer, which
// walks the kernel's table of connections once. However often somebody scrapes, that is done once a
// second at most.
//
// It is not for readiness or balancing: no part of an app waits for it.
package metrics
