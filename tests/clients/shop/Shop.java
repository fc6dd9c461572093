// A Java service that knows what it costs: GET /quote/N burns CPU in parseRequest and priceBasket, GET /clock answers what
// its own CPU clock says of the latter. Arguments: port, milliseconds of priceBasket. Its profile is a flight recording.

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.net.InetAddress;
import java.net.InetSocketAddress;

public class Shop {
    static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();
    static volatile long spent;
    static volatile long requests;
    static volatile double kept;

    static void parseRequest() {
        for (long end = THREADS.getCurrentThreadCpuTime() + 2_000_000; THREADS.getCurrentThreadCpuTime() < end; ) {
            for (int i = 0; i < 20_000; i++) kept += Math.sqrt(i);
        }
    }

    static void priceBasket(long milliseconds) {
        long began = THREADS.getCurrentThreadCpuTime();
        for (long end = began + milliseconds * 1_000_000; THREADS.getCurrentThreadCpuTime() < end; ) {
            for (int i = 0; i < 20_000; i++) kept += Math.sqrt(i);
        }
        spent += THREADS.getCurrentThreadCpuTime() - began;
    }

    static void answer(HttpExchange exchange, String text) throws IOException {
        byte[] bytes = text.getBytes();
        exchange.sendResponseHeaders(200, bytes.length);
        exchange.getResponseBody().write(bytes);
        exchange.close();
    }

    public static void main(String[] arguments) throws IOException {
        long cost = Long.parseLong(arguments[1]);
        InetSocketAddress address = new InetSocketAddress(InetAddress.getLoopbackAddress(), Integer.parseInt(arguments[0]));
        HttpServer server = HttpServer.create(address, 0);
        server.createContext("/quote/", exchange -> {
            parseRequest();
            priceBasket(cost);
            requests += 1;
            answer(exchange, "{}");
        });
        server.createContext("/clock", exchange ->
            answer(exchange, "{\"price_basket_ns\":" + spent + ",\"requests\":" + requests + "}"));
        server.start();
    }
}
