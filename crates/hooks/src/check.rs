//! The small rules of which validation is made, in upstream's words: one line at the place of use.

use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::quantity::Quantity;
use apimachinery::validation::{
    is_dns1123_label, is_dns1123_subdomain, is_path_segment_name, is_qualified_name, is_valid_port_num,
};

pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub(super) const NOT_NEGATIVE_INTEGER: &str = "must be a non-negative integer";

/// What a text must be.
type Rule = fn(&str) -> Vec<String>;

/// Collects what is wrong.
#[derive(Default)]
pub(super) struct Check(pub ErrorList);

impl Check {
    pub(super) fn required(&mut self, path: &Path, why: &str) {
        self.0.push(Error::required(path, why));
    }

    pub(super) fn forbidden(&mut self, path: &Path, why: impl Into<String>) {
        self.0.push(Error::forbidden(path, why));
    }

    pub(super) fn invalid(&mut self, path: &Path, value: impl Into<BadValue>, why: impl Into<String>) {
        self.0.push(Error::invalid(path, value, why));
    }

    pub(super) fn when(&mut self, wrong: bool, error: impl FnOnce() -> Error) {
        if wrong {
            self.0.push(error());
        }
    }

    /// Text that must be there.
    pub(super) fn present(&mut self, path: &Path, text: &str, why: &str) -> bool {
        if text.is_empty() {
            self.required(path, why);
        }
        !text.is_empty()
    }

    /// Text that keeps a rule.
    pub(super) fn keeps(&mut self, path: &Path, text: &str, rule: Rule) {
        rule(text).into_iter().for_each(|why| self.invalid(path, text, why));
    }

    /// Text that must be there and keep a rule.
    pub(super) fn present_and_keeps(&mut self, path: &Path, text: &str, why: &str, rule: Rule) {
        if self.present(path, text, why) {
            self.keeps(path, text, rule);
        }
    }

    /// One of the known words.
    pub(super) fn one_of(&mut self, path: &Path, word: &str, known: &[&str]) {
        if !known.contains(&word) {
            self.0.push(Error::not_supported(path, word, known));
        }
    }

    pub(super) fn not_negative(&mut self, path: &Path, number: impl Into<i64>) {
        let number = number.into();
        if number < 0 {
            self.invalid(path, number, NOT_NEGATIVE);
        }
    }

    pub(super) fn not_negative_quantity(&mut self, path: &Path, quantity: &Quantity) {
        if quantity.cmp_i64(0).is_lt() {
            self.invalid(path, quantity.to_string(), NOT_NEGATIVE);
        }
    }

    pub(super) fn port(&mut self, path: &Path, port: impl Into<i64>) {
        let port = port.into();
        is_valid_port_num(port).into_iter().for_each(|why| self.invalid(path, port, why));
    }

    pub(super) fn extend(&mut self, errors: impl IntoIterator<Item = Error>) {
        self.0.extend(errors);
    }
}

pub(super) fn path_segment(text: &str) -> Vec<String> {
    is_path_segment_name(text).into_iter().collect()
}

pub(super) fn label(text: &str) -> Vec<String> {
    is_dns1123_label(text).into_iter().collect()
}

pub(super) fn subdomain(text: &str) -> Vec<String> {
    is_dns1123_subdomain(text).into_iter().collect()
}

pub(super) fn qualified_name(text: &str) -> Vec<String> {
    is_qualified_name(text).into_iter().collect()
}
