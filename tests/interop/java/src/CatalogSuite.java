import java.util.Map;
import org.apache.iceberg.catalog.CatalogTests;
import org.apache.iceberg.catalog.TableIdentifier;
import org.apache.iceberg.rest.RESTCatalog;
import org.junit.jupiter.api.BeforeEach;

/** The tests that Iceberg's Java implementation has for every catalog, on a server. */
public class CatalogSuite extends CatalogTests<RESTCatalog> {
  private static final RESTCatalog CATALOG = Client.open(Map.of());

  @BeforeEach
  public void empty() {
    Client.empty(CATALOG);
  }

  @Override
  protected RESTCatalog catalog() {
    return CATALOG;
  }

  @Override
  protected RESTCatalog initCatalog(String name, Map<String, String> properties) {
    return Client.open(properties);
  }

  @Override
  protected String baseTableLocation(TableIdentifier table) {
    return Client.BASE + "/" + table.namespace() + "/" + table.name();
  }

  @Override
  protected boolean requiresNamespaceCreate() {
    return true;
  }

  @Override
  protected boolean supportsNestedNamespaces() {
    return true;
  }

  @Override
  protected boolean supportsServerSideRetry() {
    return true;
  }
}
