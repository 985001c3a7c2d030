#!/usr/bin/perl
# The debhelper sequence "unitgen": Build-Depends: dh-sequence-unitgen.

use strict;
use warnings;

# After dh_installsystemd, which thus does not see the units and restarts none of them.
insert_after('dh_installsystemd', 'dh_unitgen');

1;
