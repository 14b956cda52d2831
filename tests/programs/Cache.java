import java.util.HashMap;
import java.util.Map;

/**
 * A Java service whose static map keeps every answer, beside the garbage of each request.
 * `Cache CALM_S BYTES_PER_S`
 */
final class Cache {
    private static final int ANSWER = 4096;
    private static final Map<Long, byte[]> ANSWERS = new HashMap<>();

    public static void main(String[] arguments) throws InterruptedException {
        double calm = Double.parseDouble(arguments[0]);
        double rate = Double.parseDouble(arguments[1]);
        long garbage = 0;
        for (double begin = now(); now() - begin < calm; Thread.sleep(10)) {
            garbage += serve();
        }
        System.out.println("leaks");
        for (double begin = now();; Thread.sleep(10)) {
            garbage += serve();
            while ((double) ANSWERS.size() * ANSWER < rate * (now() - begin)) {
                ANSWERS.put((long) ANSWERS.size(), new byte[ANSWER]);
            }
        }
    }

    private static double now() {
        return System.nanoTime() / 1e9;
    }

    /** 10 MiB of garbage each second. */
    private static long serve() {
        long length = 0;
        for (int request = 0; request < 25; request++) {
            length += new byte[ANSWER].length;
        }
        return length;
    }
}
