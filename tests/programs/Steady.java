/**
 * A healthy Java service under steady load: constant live data, much garbage.
 * `Steady LIVE_BYTES GARBAGE_BYTES_PER_S`
 */
final class Steady {
    private static final int ANSWER = 4096;

    public static void main(String[] arguments) throws InterruptedException {
        byte[][] live = new byte[Integer.parseInt(arguments[0]) / ANSWER][];
        int perTick = Integer.parseInt(arguments[1]) / ANSWER / 100;
        int next = 0;
        System.out.println("serves");
        while (true) {
            for (int request = 0; request < perTick; request++) {
                live[next] = new byte[ANSWER];
                next = (next + 1) % live.length;
            }
            Thread.sleep(10);
        }
    }
}
