use strict;
use HTTP::Daemon;
use HTTP::Response;

my $daemon = HTTP::Daemon->new(LocalAddr => "0.0.0.0", LocalPort => 8080, ReuseAddr => 1) or die "listen: $!";
while (my $client = $daemon->accept) {
    if ($client->get_request) {
        $client->force_last_request;
        $client->send_response(HTTP::Response->new(200, undef, undef, "peer=" . $client->peerhost));
    }
    $client->close;
}
