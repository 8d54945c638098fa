import java.util.Map;
import org.apache.iceberg.catalog.Catalog;
import org.apache.iceberg.rest.RESTCatalog;
import org.apache.iceberg.view.ViewCatalogTests;
import org.junit.jupiter.api.BeforeEach;

/** The tests that Iceberg's Java implementation has for every catalog of views, on a server. */
public class ViewSuite extends ViewCatalogTests<RESTCatalog> {
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
  protected Catalog tableCatalog() {
    return CATALOG;
  }

  @Override
  protected String viewLocation(String... parts) {
    return Client.BASE + "/views/" + String.join("/", parts);
  }

  @Override
  protected boolean requiresNamespaceCreate() {
    return true;
  }

  @Override
  protected boolean supportsServerSideRetry() {
    return true;
  }
}
