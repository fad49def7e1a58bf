// What the benchmark suite asks of each server, as a servlet for Tomcat 10.

import jakarta.servlet.annotation.WebServlet;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.nio.charset.StandardCharsets;

@WebServlet("/*")
public class Bench extends HttpServlet {
    private static final byte[] HELLO = "Hello, world!\n".getBytes(StandardCharsets.UTF_8);
    private static final byte[] CHUNK = new byte[64 * 1024];
    private static final int DOWNLOAD = 100 * 1024 * 1024;

    private static String orEmpty(String text) {
        return text == null ? "" : text;
    }

    @Override
    protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
        switch (orEmpty(request.getPathInfo())) {
            case "/hello" -> send(response, "text/plain; charset=utf-8", HELLO);
            case "/json" -> {
                String json = "{\"hello\":\"" + orEmpty(request.getParameter("name")) + "\",\"language\":\""
                        + orEmpty(request.getHeader("accept-language")) + "\",\"client\":\""
                        + orEmpty(request.getHeader("x-client")) + "\"}";
                send(response, "application/json", json.getBytes(StandardCharsets.UTF_8));
            }
            case "/session" -> {
                var session = request.getSession();
                Integer count = (Integer) session.getAttribute("count");
                count = count == null ? 1 : count + 1;
                session.setAttribute("count", count);
                send(response, "text/plain; charset=utf-8", count.toString().getBytes(StandardCharsets.UTF_8));
            }
            case "/download" -> {
                response.setContentType("application/octet-stream");
                response.setContentLength(DOWNLOAD);
                for (int i = 0; i < DOWNLOAD / CHUNK.length; i++) {
                    response.getOutputStream().write(CHUNK);
                }
            }
            default -> response.sendError(404);
        }
    }

    @Override
    protected void doPost(HttpServletRequest request, HttpServletResponse response) throws IOException {
        switch (orEmpty(request.getPathInfo())) {
            case "/form" -> {
                String text = orEmpty(request.getParameter("name")) + " " + orEmpty(request.getParameter("text")).length();
                send(response, "text/plain; charset=utf-8", text.getBytes(StandardCharsets.UTF_8));
            }
            case "/echo" -> {
                response.setContentType("application/octet-stream");
                response.setContentLength(request.getContentLength());
                request.getInputStream().transferTo(response.getOutputStream());
            }
            default -> response.sendError(404);
        }
    }

    private static void send(HttpServletResponse response, String type, byte[] content) throws IOException {
        response.setContentType(type);
        response.setContentLength(content.length);
        response.getOutputStream().write(content);
    }
}
