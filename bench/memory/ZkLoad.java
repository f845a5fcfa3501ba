// Creates the znodes of archive.py in ZooKeeper by its own Java client: ZNODES in parents of 1,000, values of 100 B. Prints the
// time that it takes.
//
//   java -cp DIR:/usr/share/java/slf4j-nop.jar:/usr/share/java/zookeeper.jar ZkLoad HOST:PORT ZNODES IN_FLIGHT
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooKeeper;

public class ZkLoad {
    public static void main(String[] args) throws Exception {
        int znodes = Integer.parseInt(args[1]);
        int inFlight = Integer.parseInt(args[2]);
        CountDownLatch connected = new CountDownLatch(1);
        ZooKeeper zk = new ZooKeeper(args[0], 60000, event -> {
            if (event.getState() == Watcher.Event.KeeperState.SyncConnected) connected.countDown();
        });
        connected.await();
        Semaphore window = new Semaphore(inFlight);
        AtomicLong failed = new AtomicLong();
        byte[] value = new byte[100];
        long start = System.nanoTime();
        create(zk, window, failed, "/bench", new byte[0]);
        for (int i = 0; i < znodes; i++) {
            String parent = String.format("/bench/group-%07d", i / 1000);
            if (i % 1000 == 0) create(zk, window, failed, parent, new byte[0]);
            create(zk, window, failed, String.format("%s/node-%09d", parent, i), value);
        }
        window.acquire(inFlight);
        System.out.printf("%.1f s, %d failed%n", (System.nanoTime() - start) / 1e9, failed.get());
        zk.close();
        System.exit(failed.get() == 0 ? 0 : 1);
    }

    private static void create(ZooKeeper zk, Semaphore window, AtomicLong failed, String path, byte[] value)
            throws InterruptedException {
        window.acquire();
        zk.create(path, value, ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, (rc, p, ctx, name) -> {
            if (rc != 0) failed.incrementAndGet();
            window.release();
        }, null);
    }
}
