import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;

// Its selector watches the socket before the port is opened: epoll(7) has noted another socket then than the one that listens.
class Server {
    public static void main(String[] args) throws Exception {
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        listener.bind(new InetSocketAddress("0.0.0.0", 8080));
        ByteBuffer request = ByteBuffer.allocate(4096);
        while (true) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                if (key.isAcceptable()) {
                    SocketChannel client = listener.accept();
                    if (client != null) {
                        client.configureBlocking(false);
                        client.register(selector, SelectionKey.OP_READ);
                    }
                    continue;
                }
                SocketChannel client = (SocketChannel) key.channel();
                request.clear();
                if (client.read(request) > 0) {
                    String body = "peer=" + client.getRemoteAddress();
                    String head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + body.length() + "\r\n\r\n";
                    client.write(ByteBuffer.wrap((head + body).getBytes()));
                }
                client.close();
            }
            selector.selectedKeys().clear();
        }
    }
}
