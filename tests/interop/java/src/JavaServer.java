import java.util.HashMap;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.iceberg.jdbc.JdbcCatalog;
import org.apache.iceberg.rest.RESTCatalogAdapter;
import org.apache.iceberg.rest.RESTCatalogServlet;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.servlet.ServletContextHandler;
import org.eclipse.jetty.servlet.ServletHolder;

/** The REST server that the Java implementation tests its own clients with, over a catalog in SQLite below `folder`. */
public final class JavaServer {
  private JavaServer() {}

  public static void main(String[] arguments) throws Exception {
    String folder = System.getProperty("folder");
    Map<String, String> properties = new HashMap<>();
    properties.put("uri", "jdbc:sqlite:" + folder + "/catalog.db");
    properties.put("warehouse", "file://" + folder + "/warehouse");
    properties.put("io-impl", "org.apache.iceberg.hadoop.HadoopFileIO");
    properties.put("jdbc.schema-version", "V1");
    properties.put("clients", "1");
    JdbcCatalog catalog = new JdbcCatalog();
    catalog.setConf(new Configuration());
    catalog.initialize("java", properties);
    ServletContextHandler context = new ServletContextHandler();
    context.addServlet(new ServletHolder(new RESTCatalogServlet(new RESTCatalogAdapter(catalog))), "/*");
    Server server = new Server();
    ServerConnector connector = new ServerConnector(server);
    connector.setHost("127.0.0.1");
    server.addConnector(connector);
    server.setHandler(context);
    server.start();
    System.out.println("serving at http://127.0.0.1:" + connector.getLocalPort());
    server.join();
  }
}
