//! What generated requests begin with, read from `seeds.yaml`.

use apimachinery::json;
use apimachinery::value::{Key, Map, Value};
use schema::decode::{FieldValidation, free_yaml};

pub struct Seed {
    pub group: String,
    pub version: String,
    pub resource: String,
    pub name: String,
    /// Nothing is left of it: it is not stored, or controllers of the server's own would change it meanwhile.
    pub unkept: bool,
    pub base: Value,
    pub more: Map,
    pub status: Option<Value>,
}

impl Seed {
    /// The namespace of the story's objects.
    pub fn namespace(&self) -> String {
        let group = self.group.split('.').next().unwrap_or_default();
        format!("p-{group}{}-{}", self.version, self.resource)
    }
}

pub fn seeds() -> Vec<Seed> {
    let text = include_str!("seeds.yaml");
    let Value::Object(all) = free_yaml(text, FieldValidation::Ignore).unwrap().value else {
        panic!("no map")
    };
    let one = |(key, mut seed): (Key, Value)| {
        let parts: Vec<&str> = key.split('/').collect();
        let (group, version, resource) = match parts.as_slice() {
            [version, resource] => ("", *version, *resource),
            [group, version, resource] => (*group, *version, *resource),
            _ => panic!("{key}"),
        };
        let mut seed_of = Seed {
            group: group.into(),
            version: version.into(),
            resource: resource.into(),
            name: seed["name"].as_str().unwrap_or("base").into(),
            unkept: seed["unkept"] == true,
            base: json!({}),
            more: Map::new(),
            status: None,
        };
        let namespace = seed_of.namespace();
        let named = |v: Value| -> Value {
            serde_json::from_str(&v.to_string().replace("\"NS\"", &format!("{namespace:?}"))).unwrap()
        };
        seed_of.base = named(seed["base"].take());
        if let Value::Object(more) = seed["more"].take() {
            seed_of.more = more.into_iter().map(|(k, v)| (k, named(v))).collect();
        }
        seed_of.status = Some(named(seed["status"].take())).filter(|s| !s.is_null());
        seed_of
    };
    all.into_iter().map(one).collect()
}
