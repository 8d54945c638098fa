import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.iceberg.catalog.Namespace;
import org.apache.iceberg.catalog.TableIdentifier;
import org.apache.iceberg.rest.RESTCatalog;

/** The Java client of the server at the system property `uri`; tables may lie below `base`. */
final class Client {
  static final String BASE = System.getProperty("base");

  private Client() {}

  static RESTCatalog open(Map<String, String> more) {
    Map<String, String> properties = new HashMap<>();
    properties.put("uri", System.getProperty("uri"));
    // What the suites expect whoever runs them to have set.
    properties.put("table-default.default-key1", "catalog-default-key1");
    properties.put("table-default.default-key2", "catalog-default-key2");
    properties.put("table-default.override-key3", "catalog-default-key3");
    properties.put("table-override.override-key3", "catalog-override-key3");
    properties.put("table-override.override-key4", "catalog-override-key4");
    properties.put("view-default.key1", "catalog-default-key1");
    properties.put("view-default.key2", "catalog-default-key2");
    properties.put("view-default.key3", "catalog-default-key3");
    properties.put("view-override.key3", "catalog-override-key3");
    properties.put("view-override.key4", "catalog-override-key4");
    properties.putAll(more);
    RESTCatalog catalog = new RESTCatalog();
    catalog.setConf(new Configuration());
    catalog.initialize("icefield", properties);
    return catalog;
  }

  /** Removes all but the namespaces that every warehouse has. */
  static void empty(RESTCatalog catalog) {
    for (Namespace namespace : catalog.listNamespaces()) {
      empty(catalog, namespace);
    }
  }

  private static void empty(RESTCatalog catalog, Namespace namespace) {
    for (Namespace below : catalog.listNamespaces(namespace)) {
      empty(catalog, below);
    }
    for (TableIdentifier table : catalog.listTables(namespace)) {
      catalog.dropTable(table);
    }
    for (TableIdentifier view : catalog.listViews(namespace)) {
      catalog.dropView(view);
    }
    if (!List.of("raw", "cleaned", "curated").contains(namespace.level(0))) {
      catalog.dropNamespace(namespace);
    }
  }
}
