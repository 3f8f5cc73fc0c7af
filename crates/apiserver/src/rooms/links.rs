//! Links in what is proxied: those that begin at the backend's root must lead through the proxy. Upstream:
//! `proxy.Transport`.

use bytes::Bytes;
use client::transport::{BoxError, ResponseBody};
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use lol_html::element;
use lol_html::send::{HtmlRewriter, Settings};
use std::sync::Arc;

/// Attributes that hold addresses, by element.
const ATTRIBUTES: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["formaction", "src", "usemap"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// How links are rewritten.
#[derive(Debug, Clone)]
pub(super) struct Links {
    /// The backend, as links may name it.
    pub(super) host: String,
    /// The path of the proxy, before that of the backend.
    pub(super) prefix: String,
}

impl Links {
    /// The address that leads through the proxy; none when the link is right as it is.
    pub(super) fn rewrite(&self, link: &str) -> Option<String> {
        let uri: http::Uri = link.parse().ok()?;
        if uri.host().is_some() && uri.authority().is_none_or(|a| a.as_str() != self.host) {
            return None;
        }
        let path = match uri.host() {
            Some(_) => uri.path_and_query().map_or("/", |p| p.as_str()),
            None => link,
        };
        let there = path.starts_with(self.prefix.as_str());
        (path.starts_with('/') && !there).then(|| format!("{}{path}", self.prefix))
    }

    /// Rewrites the links of a page while it passes.
    pub(super) fn rewrite_page(self, page: hyper::body::Incoming) -> ResponseBody {
        let links = Arc::new(self);
        let out = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let sink = out.clone();
        let settings = ATTRIBUTES.iter().fold(Settings::new_send(), |settings, (name, attributes)| {
            let links = links.clone();
            settings.append_element_content_handler(element!(name, move |element| {
                for attribute in *attributes {
                    let link = element.get_attribute(attribute).and_then(|link| links.rewrite(link.trim()));
                    if let Some(link) = link {
                        element.set_attribute(attribute, &link)?;
                    }
                }
                Ok(())
            }))
        });
        let rewriter = HtmlRewriter::new(settings, move |bytes: &[u8]| sink.lock().extend_from_slice(bytes));
        let pages = stream::unfold((page, Some(rewriter), out), |(mut page, rewriter, out)| async move {
            let mut rewriter = rewriter?;
            let read = match page.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => rewriter.write(&data).map(|()| Some(rewriter)).map_err(BoxError::from),
                    Err(_) => Ok(Some(rewriter)),
                },
                Some(Err(error)) => Err(BoxError::from(error)),
                None => rewriter.end().map(|()| None).map_err(BoxError::from),
            };
            let written = Bytes::from(std::mem::take(&mut *out.lock()));
            match read {
                Ok(rewriter) => Some((Ok(Frame::data(written)), (page, rewriter, out))),
                Err(error) => Some((Err(error), (page, None, out))),
            }
        });
        StreamBody::new(pages).boxed_unsync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_through_the_proxy() {
        let links = Links { host: "10.0.0.1:80".into(), prefix: "/api/v1/namespaces/x/pods/y/proxy".into() };
        let check = |link: &str, expected: Option<&str>| {
            let expected = expected.map(|path| format!("/api/v1/namespaces/x/pods/y/proxy{path}"));
            assert_eq!(links.rewrite(link), expected, "{link}");
        };
        check("/a/b?c=d#e", Some("/a/b?c=d#e"));
        check("http://10.0.0.1:80/a", Some("/a"));
        check("relative", None);
        check("http://elsewhere/a", None);
        check("/api/v1/namespaces/x/pods/y/proxy/a", None);
        check("#top", None);
    }
}
