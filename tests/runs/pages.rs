//! Lists in an order, and page by page.

use serde_json::Value;

use super::operations::{run, with_runs};
use super::runs;
use crate::harness::binary::ended;

fn ids(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().expect("items");
    items
        .iter()
        .map(|item| item["id"].as_str().expect("an id"))
        .collect()
}

#[tokio::test]
async fn lists_are_sorted_by_several_fields_in_both_forms() {
    let service = with_runs(["trn.b", "trn.a", "trn.c"].map(str::to_owned)).await;
    run(&service, "abort trn.b").await.done();
    for (sort, expected) in [
        ("name", "trn.a trn.b trn.c"),
        ("NAME:Desc", "trn.c trn.b trn.a"),
        ("name desc", "trn.c trn.b trn.a"),
        ("status:desc,name:desc", "trn.c trn.a trn.b"),
        ("status asc, Name", "trn.b trn.a trn.c"),
    ] {
        let arguments = ["list", "--sort", sort, "-o", "name"];
        let listed = ended(&mut runs(&service.url(), &arguments)).await.done();
        let listed: Vec<&str> = listed.lines().collect();
        assert_eq!(listed.join(" "), expected, "{sort}");
    }
}

#[tokio::test]
async fn one_page_is_shown_with_its_tokens() {
    let service = with_runs((0..5).map(|nth| format!("trn.{nth}"))).await;
    let url = service.url();
    let page = async |arguments: &[&str]| -> Value {
        let listed = ended(&mut runs(&url, arguments)).await.done();
        serde_saphyr::from_str(&listed).expect("JSON or YAML")
    };
    let first = [
        "list",
        "--sort",
        "name:desc",
        "--page-size",
        "2",
        "--page-token",
        "",
        "-o",
        "json",
    ];
    let first = page(&first).await;
    assert_eq!(ids(&first), ["trn.4", "trn.3"]);
    assert_eq!(first["totalItemCount"], 5);
    let token = |page: &Value, name: &str| page[name].as_str().expect(name).to_owned();
    let next = token(&first, "nextPageToken");
    let second = page(&["list", "--page-token", &next, "-o", "yaml"]).await;
    assert_eq!(ids(&second), ["trn.2", "trn.1"]);
    let back = token(&second, "prevPageToken");
    let back = page(&["list", "--page-token", &back, "-o", "json"]).await;
    assert_eq!(back["items"], first["items"]);
    let last = token(&second, "lastPageToken");
    let last = page(&["list", "--page-token", &last, "-o", "json"]).await;
    assert_eq!(ids(&last), ["trn.0"]);
    assert_eq!(last.get("nextPageToken"), None);

    let table = ended(&mut runs(
        &url,
        &["list", "--page-token", &next, "--no-headers"],
    ))
    .await;
    assert_eq!((table.code, table.out.lines().count()), (0, 2), "{table:?}");
    assert_eq!(
        table.notes,
        "podbeat: there are more pages; -o json and -o yaml show their tokens\n"
    );
    let names = ended(&mut runs(
        &url,
        &["list", "--page-token", &next, "-o", "name"],
    ))
    .await;
    assert_eq!(names.done(), "trn.2\ntrn.1\n");

    let other = ended(&mut runs(&url, &["list", "--page-token", "hunter2"])).await;
    assert_eq!(other.code, 65, "{other:?}");
    assert!(!other.notes.contains("hunter2"), "{other:?}");
}
